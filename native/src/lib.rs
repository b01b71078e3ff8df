//! The Node-API boundary.
