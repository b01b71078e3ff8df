//! The data sets that can be opened, one file each.

pub(crate) mod captions;
pub(crate) mod coco;
pub(crate) mod folder;
pub(crate) mod scenes;
pub(crate) mod shapeworld;

use crate::error::{DataError, Result};

/// The record at `index`, or the error every data set gives out of range.
fn at<T>(records: &[T], index: usize) -> Result<&T> {
    records.get(index).ok_or_else(|| out_of_range(index, records.len()))
}

fn out_of_range(index: usize, len: usize) -> DataError {
    DataError::shape("position in the data set", index, format!("below {len}"))
}
