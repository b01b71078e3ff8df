//! Where arrays enter: shapes, offsets, memory, errors.
#![allow(clippy::unwrap_used)]

use lucid_kernels::{
    CodeShape, Codes, DeadCounters, DeadLists, Device, KernelError, Pairs, Ragged, Scalar, Selection, UNUSED,
};

const BACKEND: Scalar<f32> = Scalar::new();
const SHAPE: CodeShape =
    CodeShape { d_shared: 2, d_private: 3, k_shared: 1, k_private: 1, selection: Selection::Split };

#[test]
fn ragged_offsets() {
    let ragged = Ragged::from_lengths([3, 0, 2]);
    assert_eq!((ragged.len(), ragged.total(), ragged.longest()), (3, 5, 3));
    assert_eq!((ragged.range(0), ragged.range(1), ragged.range(2)), (0..3, 3..3, 3..5));
    assert_eq!(ragged.offsets(), [0, 3, 3, 5]);
    assert!(Ragged::default().is_empty() && Ragged::from_lengths([]).is_empty());
}

#[test]
fn pairs_have_cells_and_refuse_empty_sides() {
    let pairs = Pairs::new(&[2, 3], &[4, 1]).unwrap();
    assert_eq!((pairs.len(), pairs.cells.range(0), pairs.cells.range(1)), (2, 0..8, 8..11));
    for (vision, text, what) in [
        (&[2, 0][..], &[1, 1][..], "visionLengths[1]"),
        (&[2, 1], &[0, 1], "textLengths[0]"),
        (&[2], &[1, 1], "textLengths"),
    ] {
        let error = Pairs::new(vision, text).unwrap_err();
        assert!(matches!(&error, KernelError::Shape { what: found, .. } if found == what), "{error}");
    }
}

#[test]
fn codes_are_checked() {
    let good = Codes::upload(&BACKEND, SHAPE, &[1, 4, UNUSED, UNUSED], &[0.5, 1.0, 0.0, 0.0]).unwrap();
    assert_eq!((good.n, good.k), (2, 2));
    assert_eq!(good.read(&BACKEND).unwrap(), (vec![1, 4, UNUSED, UNUSED], vec![0.5, 1.0, 0.0, 0.0]));
    assert!(Codes::upload(&BACKEND, SHAPE, &[1, 4, 0], &[0.5, 1.0, 0.0]).is_err(), "not a multiple of k");
    assert!(Codes::upload(&BACKEND, SHAPE, &[1, 4], &[0.5]).is_err(), "unequal lengths");
    assert!(Codes::upload(&BACKEND, SHAPE, &[1, 5], &[0.5, 1.0]).is_err(), "no latent 5");
}

#[test]
fn memory_errors_are_typed() {
    let error = BACKEND.zeros::<f32>(usize::MAX / 2).unwrap_err();
    assert_eq!(error.code(), "E_MEMORY");
    let error = BACKEND.zeros::<f32>(1 << 52).unwrap_err();
    assert_eq!((error.code(), &error), ("E_MEMORY", &KernelError::Memory { bytes: 1 << 54 }));
    let mut buffer = BACKEND.upload(&[1.0f32, 2.0]).unwrap();
    assert_eq!(BACKEND.write(&mut buffer, 1, &[3.0, 4.0]).unwrap_err().code(), "E_SHAPE");
    assert_eq!(BACKEND.read(&buffer, 2, &mut [0.0]).unwrap_err().code(), "E_SHAPE");
    BACKEND.write(&mut buffer, 1, &[3.0]).unwrap();
    assert_eq!(BACKEND.read_vec(&buffer, 2).unwrap(), [1.0, 3.0]);
    BACKEND.reserve(&mut buffer, 1).unwrap();
    assert_eq!(BACKEND.len(&buffer), 2, "a long enough buffer stays");
}

#[test]
fn errors_name_what_was_found() {
    let error = KernelError::EmptyMask { pair: 11, axis: "column", index: 4 };
    assert_eq!(error.to_string(), "the mask of pair 11 leaves column 4 without an admissible entry");
    assert_eq!(error.details()["pair"], 11);
    assert!(error.hint().unwrap().contains("maskPenalty"));
    let error = KernelError::NonFinite { what: "text activations", pair: 2, position: 3 };
    assert_eq!(error.details()["pair"], 2);
}

#[test]
fn dead_means_more_tokens_than_allowed() {
    let mut counters = DeadCounters::new(4);
    counters.advance(&[1, 0, 0, 0], 10);
    counters.advance(&[0, 0, 2, 0], 5);
    assert_eq!(counters.tokens_since_fired, [5, 15, 0, 15]);
    assert_eq!(counters.lists(2, 14), DeadLists { shared: vec![1], private: vec![3] });
    assert!(counters.lists(2, 15).is_empty());
}
