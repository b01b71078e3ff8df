//! lucid-interpret
