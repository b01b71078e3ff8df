//! Training of the embedded mini backbone: a small SigLIP model that learns generated scenes from their captions alone.
//!
//! [`recipe`] says what is trained on what; [`batches`] draws it, [`trainee`] holds parameters and runs them through
//! [`crate::model`], [`loss`] is the sigmoid loss with the auxiliary bag of words, [`local`] lets words find their patches,
//! [`optimiser`] is AdamW and Muon, [`run`] the resumable loop, and [`export`] its files in Hugging Face's layout. What the result knows, [`crate::examination`] finds out.

pub mod batches;
pub mod export;
pub(crate) mod initial;
pub mod local;
pub mod loss;
pub mod optimiser;
pub mod recipe;
pub mod run;
pub mod tokens;
pub mod trainee;
pub mod word_pairs;
