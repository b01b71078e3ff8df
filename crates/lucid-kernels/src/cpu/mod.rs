//! Fast CPU backend (f32).
