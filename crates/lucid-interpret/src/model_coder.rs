//! A trained model as the metrics and Algorithm 1 see it.

use lucid_kernels::{Block, Modality, UNUSED};
use lucid_sae::{Codes, Model};

use crate::coder::{Coder, PairPlan, SparseCodes};
use crate::error::Result;

/// Slots in the layout of the model; it sorts them itself.
fn slots(codes: &SparseCodes, model: &Model) -> Codes {
    // With thresholds a token may hold more entries than k.
    let most = (0..codes.len()).map(|token| codes.row(token).indices.len()).max().unwrap_or(0);
    let (k_shared, k_private) = match model.has_thresholds() {
        false => (model.config.k_shared, model.config.k_private),
        true => (most.max(1), 0),
    };
    let k = k_shared + k_private;
    let (mut indices, mut values) = (Vec::with_capacity(codes.len() * k), Vec::with_capacity(codes.len() * k));
    for token in 0..codes.len() {
        let row = codes.row(token);
        indices.extend_from_slice(row.indices);
        values.extend_from_slice(row.values);
        indices.resize((token + 1) * k, UNUSED);
        values.resize((token + 1) * k, 0.0);
    }
    Codes { indices, values, n: codes.len(), k_shared, k_private }
}

impl Coder for Model {
    fn width(&self, modality: Modality) -> usize {
        Model::width(self, modality)
    }

    fn d_shared(&self) -> usize {
        self.config.d_shared
    }

    fn latents(&self) -> usize {
        self.config.latents()
    }

    fn encode(&self, activations: &[f32], modality: Modality) -> Result<SparseCodes> {
        let codes = Model::encode(self, activations, modality)?;
        Ok(SparseCodes::from_slots(
            self.config.d_shared,
            codes.k_shared + codes.k_private,
            &codes.indices,
            &codes.values,
        ))
    }

    fn decode(&self, codes: &SparseCodes, modality: Modality, block: Block) -> Result<Vec<f32>> {
        Ok(Model::decode(self, &slots(codes, self), modality, block)?)
    }

    fn plan(&self, vision: &SparseCodes, text: &SparseCodes) -> Result<PairPlan> {
        let plan = self.match_pair(&slots(vision, self), &slots(text, self))?;
        Ok(PairPlan { rows: plan.rows, columns: plan.columns, mass: plan.plan.into_iter().map(f64::from).collect() })
    }
}
