//! The exports, once for f32 and once for f64.

use napi::bindgen_prelude::*;
use napi_derive::napi;

use super::operations::{self, GivenPlan, HostPlan, Weights};
use super::step::{self, StepBatch};
use super::{KernelOptions, pairs};
use crate::error::Failure;

fn options(json: &str) -> std::result::Result<KernelOptions, Failure> {
    Ok(serde_json::from_str(json)?)
}

/// Defines one set of exports: the backend, JavaScript's array class, and the names.
macro_rules! exports {
    (
        $backend:expr, $real:ident, $Array:ident,
        $codes:ident, $plan:ident, $step_result:ident, $update:ident,
        $encode:ident, $decode:ident, $cosine:ident, $sinkhorn:ident, $gcmt:ident, $barycenter:ident, $step:ident, $adamw:ident
    ) => {
        /// Codes as arrays.
        #[napi(object, object_from_js = false)]
        pub struct $codes {
            /// Latent indices.
            pub indices: Uint32Array,
            /// Values.
            pub values: $Array,
        }

        /// Plans of a batch and their diagnostics.
        #[napi(object, object_from_js = false)]
        pub struct $plan {
            /// Π of every pair, row by row.
            pub plan: $Array,
            /// Row scaling.
            pub u: $Array,
            /// Column scaling.
            pub v: $Array,
            /// Row-marginal error of every pair.
            pub marginal_error: Float64Array,
            /// ⟨C̃, Π⟩ of every pair.
            pub transport_cost: Float64Array,
            /// Entropy of every pair.
            pub entropy: Float64Array,
            /// Rounds of every pair.
            pub iterations: Uint32Array,
            /// Mass of each token.
            pub column_marginal: Option<$Array>,
            /// Weights w of each token.
            pub weights: Option<$Array>,
        }

        /// Losses and gradients.
        #[napi(object, object_from_js = false)]
        pub struct $step_result {
            /// Losses by name, as JSON.
            pub losses: String,
            /// `W_enc`, `b_enc`, `W_dec`, `b_dec` of vision, then of text.
            pub gradients: Vec<$Array>,
            /// Π of every pair.
            pub plan: $Array,
            /// Mass of each token.
            pub column_marginal: $Array,
        }

        /// Parameters and moments after an update.
        #[napi(object, object_from_js = false)]
        pub struct $update {
            /// Parameters.
            pub params: Vec<$Array>,
            /// First moments.
            pub first: Vec<$Array>,
            /// Second moments.
            pub second: Vec<$Array>,
            /// Learning rate used.
            pub lr: f64,
            /// Global norm before clipping.
            pub gradient_norm: f64,
        }

        impl From<HostPlan<$real>> for $plan {
            fn from(plan: HostPlan<$real>) -> Self {
                Self {
                    plan: plan.plan.into(),
                    u: plan.u.into(),
                    v: plan.v.into(),
                    marginal_error: plan.marginal_error.into(),
                    transport_cost: plan.transport_cost.into(),
                    entropy: plan.entropy.into(),
                    iterations: plan.iterations.into(),
                    column_marginal: plan.column_marginal.map(Into::into),
                    weights: plan.weights.map(Into::into),
                }
            }
        }

        #[napi(catch_unwind)]
        pub fn $encode(
            json: String,
            activations: &[$real],
            w_enc: &[$real],
            b_enc: &[$real],
            b_dec: &[$real],
        ) -> Result<$codes> {
            let weights = Weights { w_enc, b_enc, w_dec: &[], b_dec };
            let (indices, values) =
                operations::encode_topk(&$backend, &options(&json)?, activations, &weights).map_err(Failure::from)?;
            Ok($codes { indices: indices.into(), values: values.into() })
        }

        #[napi(catch_unwind)]
        pub fn $decode(
            json: String,
            indices: &[u32],
            values: &[$real],
            w_dec: &[$real],
            b_dec: &[$real],
        ) -> Result<$Array> {
            let weights = Weights { w_enc: &[], b_enc: &[], w_dec, b_dec };
            let out = operations::decode(&$backend, &options(&json)?, (indices, values), &weights);
            Ok(out.map_err(Failure::from)?.into())
        }

        #[napi(catch_unwind)]
        pub fn $cosine(
            json: String,
            vision_indices: &[u32],
            vision_values: &[$real],
            text_indices: &[u32],
            text_values: &[$real],
            vision_lengths: &[u32],
            text_lengths: &[u32],
        ) -> Result<$Array> {
            let pairs = pairs(vision_lengths, text_lengths).map_err(Failure::from)?;
            let (vision, text) = ((vision_indices, vision_values), (text_indices, text_values));
            let out = operations::cosine_cost(&$backend, &options(&json)?, vision, text, &pairs);
            Ok(out.map_err(Failure::from)?.into())
        }

        #[napi(catch_unwind)]
        pub fn $sinkhorn(
            json: String,
            cost: &[$real],
            vision_lengths: &[u32],
            text_lengths: &[u32],
            row: Option<$Array>,
            column: Option<$Array>,
            mask: Option<$Array>,
        ) -> Result<$plan> {
            let pairs = pairs(vision_lengths, text_lengths).map_err(Failure::from)?;
            let (row, column, mask) = (row.as_deref(), column.as_deref(), mask.as_deref());
            let out = operations::sinkhorn(&$backend, &options(&json)?, cost, &pairs, row, column, mask);
            Ok(out.map_err(Failure::from)?.into())
        }

        #[napi(catch_unwind)]
        pub fn $gcmt(
            json: String,
            vision_indices: &[u32],
            vision_values: &[$real],
            text_indices: &[u32],
            text_values: &[$real],
            vision_lengths: &[u32],
            text_lengths: &[u32],
            admissible: Option<$Array>,
        ) -> Result<$plan> {
            let pairs = pairs(vision_lengths, text_lengths).map_err(Failure::from)?;
            let (vision, text) = ((vision_indices, vision_values), (text_indices, text_values));
            let out = operations::gcmt(&$backend, &options(&json)?, vision, text, &pairs, admissible.as_deref());
            Ok(out.map_err(Failure::from)?.into())
        }

        #[napi(catch_unwind)]
        pub fn $barycenter(
            json: String,
            plan: &[$real],
            indices: &[u32],
            values: &[$real],
            w_dec: &[$real],
            b_dec: &[$real],
            vision_lengths: &[u32],
            text_lengths: &[u32],
        ) -> Result<$Array> {
            let pairs = pairs(vision_lengths, text_lengths).map_err(Failure::from)?;
            let weights = Weights { w_enc: &[], b_enc: &[], w_dec, b_dec };
            let given = GivenPlan { values: plan, pairs: &pairs };
            let out = operations::barycenter(&$backend, &options(&json)?, &given, (indices, values), &weights);
            Ok(out.map_err(Failure::from)?.into())
        }

        #[napi(catch_unwind)]
        pub fn $step(
            json: String,
            params: Vec<$Array>,
            vision: &[$real],
            vision_lengths: &[u32],
            text: &[$real],
            text_lengths: &[u32],
            admissible: Option<$Array>,
            dead_vision: Option<Uint8Array>,
            dead_text: Option<Uint8Array>,
        ) -> Result<$step_result> {
            let batch = StepBatch {
                vision,
                vision_lengths,
                text,
                text_lengths,
                admissible: admissible.as_deref(),
                dead_vision: dead_vision.as_deref(),
                dead_text: dead_text.as_deref(),
            };
            let params = params.iter().map(|array| array.to_vec()).collect();
            let result = step::step(&$backend, &json, params, &batch)?;
            Ok($step_result {
                losses: result.losses.to_string(),
                gradients: result.gradients.into_iter().map(Into::into).collect(),
                plan: result.plan.into(),
                column_marginal: result.column_marginal.into(),
            })
        }

        #[napi(catch_unwind)]
        pub fn $adamw(
            json: String,
            params: Vec<$Array>,
            gradients: Vec<$Array>,
            first: Vec<$Array>,
            second: Vec<$Array>,
        ) -> Result<$update> {
            let copy = |arrays: Vec<$Array>| arrays.iter().map(|array| array.to_vec()).collect();
            let update = step::adamw(&$backend, &json, copy(params), copy(gradients), copy(first), copy(second))?;
            let give = |arrays: Vec<Vec<$real>>| arrays.into_iter().map(Into::into).collect();
            Ok($update {
                params: give(update.params),
                first: give(update.first),
                second: give(update.second),
                lr: update.lr,
                gradient_norm: update.gradient_norm,
            })
        }
    };
}

exports!(
    lucid_sae::device::cpu().map_err(crate::error::Failure::from)?,
    f32,
    Float32Array,
    NativeCodesF32,
    NativePlanF32,
    NativeStepF32,
    NativeUpdateF32,
    encode_topk_f32,
    decode_f32,
    cosine_cost_f32,
    sinkhorn_f32,
    gcmt_f32,
    barycenter_f32,
    step_f32,
    adamw_f32
);
exports!(
    lucid_kernels::Scalar::<f64>::new(),
    f64,
    Float64Array,
    NativeCodesF64,
    NativePlanF64,
    NativeStepF64,
    NativeUpdateF64,
    encode_topk_f64,
    decode_f64,
    cosine_cost_f64,
    sinkhorn_f64,
    gcmt_f64,
    barycenter_f64,
    step_f64,
    adamw_f64
);
