//! Which latents are dead: tokens seen since each last fired (spec 4.2).

/// Tokens of a modality seen since each of its latents last fired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadCounters {
    /// One counter a latent \[K\].
    pub tokens_since_fired: Vec<u64>,
}

/// The dead latents of one modality by block, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLists {
    /// Dead latents below d_shared.
    pub shared: Vec<u32>,
    /// Dead latents from d_shared on.
    pub private: Vec<u32>,
}

impl DeadCounters {
    /// All latents alive.
    #[must_use]
    pub fn new(latents: usize) -> Self {
        Self { tokens_since_fired: vec![0; latents] }
    }

    /// After a step over `tokens` tokens in which latent k fired `fired[k]` times.
    pub fn advance(&mut self, fired: &[u32], tokens: u64) {
        for (counter, &count) in self.tokens_since_fired.iter_mut().zip(fired) {
            *counter = if count > 0 { 0 } else { *counter + tokens };
        }
    }

    /// Latents dead for more than `dead_after` tokens.
    #[must_use]
    pub fn lists(&self, d_shared: usize, dead_after: u64) -> DeadLists {
        DeadLists::from_flags(self.tokens_since_fired.iter().map(|&tokens| tokens > dead_after), d_shared)
    }
}

impl DeadLists {
    /// From one flag a latent.
    #[must_use]
    pub fn from_flags(flags: impl IntoIterator<Item = bool>, d_shared: usize) -> Self {
        let dead = flags.into_iter().zip(0u32..).filter_map(|(flag, latent)| flag.then_some(latent));
        let (shared, private) = dead.partition(|&latent| (latent as usize) < d_shared);
        Self { shared, private }
    }

    /// Whether no latent is dead.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.private.is_empty()
    }

    /// Number of dead latents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.len() + self.private.len()
    }
}
