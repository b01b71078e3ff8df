//! Shapes and inputs shared by the benches.
