//! What a training step is given, besides parameters: micro-batches of pairs.

use lucid_kernels::{Backend, DeadLists, KernelError, Modality, Pairs, Real};

use crate::config::Config;

/// A value of each modality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides<T> {
    /// Of patches.
    pub vision: T,
    /// Of text tokens.
    pub text: T,
}

impl<T> Sides<T> {
    /// One modality's.
    pub const fn of(&self, modality: Modality) -> &T {
        match modality {
            Modality::Vision => &self.vision,
            Modality::Text => &self.text,
        }
    }

    /// One modality's.
    pub const fn of_mut(&mut self, modality: Modality) -> &mut T {
        match modality {
            Modality::Vision => &mut self.vision,
            Modality::Text => &mut self.text,
        }
    }
}

/// What a step depends on besides parameters and pairs.
#[derive(Clone, Copy, Debug)]
pub struct StepInputs<'a> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// V_m, the variance of token states (spec 4.1), in the units of the activations given.
    pub variance: Sides<f64>,
    /// V_m^pool, needed with `alignNormalization: 'pooled'` (spec 5.2).
    pub pooled_variance: Option<Sides<f64>>,
    /// Dead latents; empty lists switch AuxK off.
    pub dead: &'a Sides<DeadLists>,
    /// Copy the plans and their diagnostics to the host.
    pub keep_plan: bool,
    /// The only modality that this step encodes, in a method that encodes one at a time ([`crate::method::Method::encoder`]).
    pub encoder: Option<Modality>,
}

/// Host arrays of some pairs, tokens of all pairs one after the other (spec 1).
#[derive(Clone, Copy, Debug)]
pub struct HostPairs<'a, T> {
    /// Patch activations \[N_v · d_v\], normalised as the model wants them.
    pub vision: &'a [T],
    /// Patches of each pair.
    pub vision_lengths: &'a [usize],
    /// Text activations \[N_t · d_t\].
    pub text: &'a [T],
    /// Valid tokens of each pair.
    pub text_lengths: &'a [usize],
    /// M \[Σ T_v·T_t\], row-major per pair; all admissible where absent.
    pub admissible: Option<&'a [T]>,
}

/// Pairs whose intermediate arrays exist at the same time, on the device.
pub struct MicroBatch<B: Backend> {
    /// Lengths and offsets.
    pub pairs: Pairs,
    /// Activations: \[N_v · d_v\] and \[N_t · d_t\].
    pub acts: Sides<B::Buffer<B::Real>>,
    /// M \[cells\].
    pub admissible: Option<B::Buffer<B::Real>>,
}

impl<B: Backend> MicroBatch<B> {
    /// No pairs yet.
    pub fn empty(backend: &B) -> Result<Self, KernelError> {
        let acts = Sides { vision: backend.zeros(0)?, text: backend.zeros(0)? };
        Ok(Self { pairs: Pairs::default(), acts, admissible: None })
    }

    /// Copies pairs to the device after checking them; see [`MicroBatch::fill`].
    pub fn upload(
        backend: &B,
        d_vision: usize,
        d_text: usize,
        host: &HostPairs<'_, B::Real>,
    ) -> Result<Self, KernelError> {
        let mut batch = Self::empty(backend)?;
        batch.fill(backend, d_vision, d_text, host)?;
        Ok(batch)
    }

    /// Replaces the pairs, keeping the device buffers where they are long enough.
    ///
    /// Errors: lengths that do not fit, a pair without tokens, a value that is not finite (named by pair), a mask value
    /// outside \[0, 1\]. After an error the micro-batch must be filled again before use.
    pub fn fill(
        &mut self,
        backend: &B,
        d_vision: usize,
        d_text: usize,
        host: &HostPairs<'_, B::Real>,
    ) -> Result<(), KernelError> {
        let pairs = Pairs::new(host.vision_lengths, host.text_lengths)?;
        let sides = [
            (Modality::Vision, "vision activations", host.vision, d_vision),
            (Modality::Text, "text activations", host.text, d_text),
        ];
        for (modality, what, values, d) in sides {
            let segments = match modality {
                Modality::Vision => &pairs.vision,
                Modality::Text => &pairs.text,
            };
            if values.len() != segments.total() * d {
                return Err(KernelError::shape(what, values.len(), format!("{} tokens × {d}", segments.total())));
            }
            if let Some(position) = values.iter().position(|value| !value.widen().is_finite()) {
                let (pair, start) = locate(segments.offsets(), position, d);
                return Err(KernelError::NonFinite { what, pair, position: position - start });
            }
            let buffer = self.acts.of_mut(modality);
            backend.reserve(buffer, values.len())?;
            backend.write(buffer, 0, values)?;
        }
        self.admissible = match host.admissible {
            None => None,
            Some(mask) => {
                if mask.len() != pairs.cells.total() {
                    return Err(KernelError::shape("admissible", mask.len(), pairs.cells.total()));
                }
                if let Some(bad) = mask.iter().find(|value| !(0.0..=1.0).contains(&value.widen())) {
                    return Err(KernelError::shape("an admissible value", bad, "in [0, 1]"));
                }
                Some(backend.upload(mask)?)
            }
        };
        self.pairs = pairs;
        Ok(())
    }

    /// Tokens of a modality.
    #[must_use]
    pub fn tokens(&self, modality: Modality) -> usize {
        match modality {
            Modality::Vision => self.pairs.vision.total(),
            Modality::Text => self.pairs.text.total(),
        }
    }
}

/// The pair that holds value `position` of an array with `d` values a token, and where the pair starts.
fn locate(offsets: &[usize], position: usize, d: usize) -> (usize, usize) {
    let token = position / d;
    let pair = offsets.partition_point(|&offset| offset <= token).saturating_sub(1);
    (pair, offsets[pair] * d)
}
