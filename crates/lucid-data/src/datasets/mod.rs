//! The data sets that can be opened.
