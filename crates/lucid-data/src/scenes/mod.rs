//! Generated scenes with captions and the full truth.
