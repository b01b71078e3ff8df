//! Parameters, and everything of their shape: gradients and moments.

use lucid_kernels::{Backend, Dictionary, KernelError, Modality, Real};

use crate::batch::Sides;

/// Parameters (or gradients, or moments) of both modalities on a device.
pub struct Params<B: Backend> {
    /// Encoder and decoder of patches.
    pub vision: Dictionary<B>,
    /// Encoder and decoder of text tokens.
    pub text: Dictionary<B>,
    /// ln θ \[K\], the thresholds of JumpReLU; `None` with other activations.
    pub log_threshold: Option<Sides<B::Buffer<B::Real>>>,
}

/// One modality's parameters on the host, laid out as in files and in the public API (spec 1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostDictionary<T> {
    /// Width of the activations.
    pub d: usize,
    /// Latents K = K_s + K_p.
    pub latents: usize,
    /// W_enc \[d × K\], row-major.
    pub w_enc: Vec<T>,
    /// b_enc \[K\].
    pub b_enc: Vec<T>,
    /// W_dec \[K × d\], row-major.
    pub w_dec: Vec<T>,
    /// b_dec \[d\].
    pub b_dec: Vec<T>,
}

/// Parameters of both modalities on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostParams<T> {
    /// Encoder and decoder of patches.
    pub vision: HostDictionary<T>,
    /// Encoder and decoder of text tokens.
    pub text: HostDictionary<T>,
    /// ln θ \[K\], the thresholds of JumpReLU; `None` with other activations.
    pub log_threshold: Option<Sides<Vec<T>>>,
}

/// A named array of a [`HostDictionary`].
pub struct NamedTensor<'a, T> {
    /// Name within the modality: `W_enc`, `b_enc`, `W_dec` or `b_dec`.
    pub name: &'static str,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: &'a [T],
}

impl<T: Real> HostDictionary<T> {
    /// All zero.
    #[must_use]
    pub fn zeros(d: usize, latents: usize) -> Self {
        Self {
            d,
            latents,
            w_enc: vec![T::zero(); d * latents],
            b_enc: vec![T::zero(); latents],
            w_dec: vec![T::zero(); latents * d],
            b_dec: vec![T::zero(); d],
        }
    }

    /// The four arrays under the names of the spec.
    #[must_use]
    pub fn tensors(&self) -> [NamedTensor<'_, T>; 4] {
        let (d, latents) = (self.d, self.latents);
        [
            NamedTensor { name: "W_enc", shape: vec![d, latents], values: &self.w_enc },
            NamedTensor { name: "b_enc", shape: vec![latents], values: &self.b_enc },
            NamedTensor { name: "W_dec", shape: vec![latents, d], values: &self.w_dec },
            NamedTensor { name: "b_dec", shape: vec![d], values: &self.b_dec },
        ]
    }

    /// Checks that every array has the length its dimensions make.
    pub fn check(&self) -> Result<(), KernelError> {
        for tensor in self.tensors() {
            let expected: usize = tensor.shape.iter().product();
            if tensor.values.len() != expected {
                return Err(KernelError::shape(tensor.name, tensor.values.len(), expected));
            }
        }
        Ok(())
    }

    /// Copies to a device.
    pub fn upload<B: Backend<Real = T>>(&self, backend: &B) -> Result<Dictionary<B>, KernelError> {
        self.check()?;
        Ok(Dictionary {
            d: self.d,
            latents: self.latents,
            w_enc_t: backend.upload(&transpose(&self.w_enc, self.d, self.latents))?,
            b_enc: backend.upload(&self.b_enc)?,
            w_dec: backend.upload(&self.w_dec)?,
            b_dec: backend.upload(&self.b_dec)?,
        })
    }

    /// Copies from a device.
    pub fn read<B: Backend<Real = T>>(backend: &B, dictionary: &Dictionary<B>) -> Result<Self, KernelError> {
        let (d, latents) = (dictionary.d, dictionary.latents);
        Ok(Self {
            d,
            latents,
            w_enc: transpose(&backend.read_vec(&dictionary.w_enc_t, latents * d)?, latents, d),
            b_enc: backend.read_vec(&dictionary.b_enc, latents)?,
            w_dec: backend.read_vec(&dictionary.w_dec, latents * d)?,
            b_dec: backend.read_vec(&dictionary.b_dec, d)?,
        })
    }
}

impl<T: Real> HostParams<T> {
    /// All zero.
    #[must_use]
    pub fn zeros(d_vision: usize, d_text: usize, latents: usize) -> Self {
        let (vision, text) = (HostDictionary::zeros(d_vision, latents), HostDictionary::zeros(d_text, latents));
        Self { vision, text, log_threshold: None }
    }

    /// One modality.
    #[must_use]
    pub const fn of(&self, modality: Modality) -> &HostDictionary<T> {
        match modality {
            Modality::Vision => &self.vision,
            Modality::Text => &self.text,
        }
    }

    /// One modality.
    pub const fn of_mut(&mut self, modality: Modality) -> &mut HostDictionary<T> {
        match modality {
            Modality::Vision => &mut self.vision,
            Modality::Text => &mut self.text,
        }
    }
}

impl<B: Backend> Params<B> {
    /// All zero.
    pub fn zeros(backend: &B, d_vision: usize, d_text: usize, latents: usize) -> Result<Self, KernelError> {
        Ok(Self {
            vision: Dictionary::zeros(backend, d_vision, latents)?,
            text: Dictionary::zeros(backend, d_text, latents)?,
            log_threshold: None,
        })
    }

    /// Zeros of the same shape.
    pub fn zeros_like(&self, backend: &B) -> Result<Self, KernelError> {
        let latents = self.vision.latents;
        let mut zeros = Self::zeros(backend, self.vision.d, self.text.d, latents)?;
        if self.log_threshold.is_some() {
            zeros.log_threshold = Some(Sides { vision: backend.zeros(latents)?, text: backend.zeros(latents)? });
        }
        Ok(zeros)
    }

    /// Copies to a device. Both modalities need the same number of latents.
    pub fn upload(backend: &B, host: &HostParams<B::Real>) -> Result<Self, KernelError> {
        if host.vision.latents != host.text.latents {
            return Err(KernelError::shape("text latents", host.text.latents, host.vision.latents));
        }
        let log_threshold = match &host.log_threshold {
            None => None,
            Some(Sides { vision, text }) => {
                Some(Sides { vision: backend.upload(vision)?, text: backend.upload(text)? })
            }
        };
        Ok(Self { vision: host.vision.upload(backend)?, text: host.text.upload(backend)?, log_threshold })
    }

    /// Copies from a device.
    pub fn read(&self, backend: &B) -> Result<HostParams<B::Real>, KernelError> {
        let latents = self.vision.latents;
        let log_threshold = match &self.log_threshold {
            None => None,
            Some(Sides { vision, text }) => {
                Some(Sides { vision: backend.read_vec(vision, latents)?, text: backend.read_vec(text, latents)? })
            }
        };
        Ok(HostParams {
            vision: HostDictionary::read(backend, &self.vision)?,
            text: HostDictionary::read(backend, &self.text)?,
            log_threshold,
        })
    }

    /// Sets every value to zero.
    pub fn clear(&mut self, backend: &B) -> Result<(), KernelError> {
        self.vision.clear(backend)?;
        self.text.clear(backend)?;
        if let Some(log_threshold) = &mut self.log_threshold {
            backend.clear(&mut log_threshold.vision, self.vision.latents)?;
            backend.clear(&mut log_threshold.text, self.text.latents)?;
        }
        Ok(())
    }

    /// One modality.
    #[must_use]
    pub const fn of(&self, modality: Modality) -> &Dictionary<B> {
        match modality {
            Modality::Vision => &self.vision,
            Modality::Text => &self.text,
        }
    }

    /// One modality.
    pub const fn of_mut(&mut self, modality: Modality) -> &mut Dictionary<B> {
        match modality {
            Modality::Vision => &mut self.vision,
            Modality::Text => &mut self.text,
        }
    }
}

/// The transpose of a row-major `rows × columns` array, in tiles that fit the cache.
#[must_use]
pub fn transpose<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    const TILE: usize = 32;
    let mut out = vec![T::default(); rows * columns];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for row in row_tile..rows.min(row_tile + TILE) {
                for column in column_tile..columns.min(column_tile + TILE) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}
