//! Training of the embedded mini backbone.
