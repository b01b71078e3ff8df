//! Barycentres both ways, forward and backward (spec 4).

use lucid_kernels::{Backend, Block, Direction, Pairs};

use crate::common::{
    HostCodes, HostDictionary, Random, SPLIT, assert_close, central_differences, difference_tolerance, dot, for_all,
    plan_of, read, rubbish, some_pairs, tolerance, upload,
};
use crate::oracle;

on_every_backend!(
    equals_the_weighted_mean,
    long_pairs_and_wide_rows,
    code_then_decode_is_decode_then_average,
    backward_is_the_derivative,
    an_empty_target_is_zero,
);

const DIRECTIONS: [Direction; 2] = [Direction::T2V, Direction::V2T];

fn equals_the_weighted_mean<B: Backend>(backend: &B) {
    for_all(8, &(0u64..1 << 32, 1usize..50), |(seed, d)| {
        let mut random = Random(seed);
        let lengths = |random: &mut Random| [1 + random.below(40), 1 + random.below(9), 1];
        let pairs = Pairs::new(&lengths(&mut random), &lengths(&mut random)).unwrap();
        let cells = random.between(pairs.cells.total(), 0.01, 1.0);
        let plan = plan_of(backend, &pairs, &cells);
        for direction in DIRECTIONS {
            let y = random.values(direction.source(&pairs).total() * d);
            let len = direction.target(&pairs).total() * d;
            let mut out = rubbish(backend, len);
            backend.barycenter(&plan, &pairs, direction, d, &upload(backend, &y), &mut out).unwrap();
            let expected = oracle::barycenter(&cells, &pairs, direction, d, &y);
            assert_close("barycentre", &read(backend, &out, len), &expected, tolerance::<B>());
        }
    });
}

/// More targets, sources and columns than a block of a GPU takes at once, beside a pair of few.
fn long_pairs_and_wide_rows<B: Backend>(backend: &B) {
    let (mut random, d) = (Random(22), 150);
    let pairs = Pairs::new(&[235, 3], &[300, 2]).unwrap();
    let cells = random.between(pairs.cells.total(), 0.01, 1.0);
    let plan = plan_of(backend, &pairs, &cells);
    for direction in DIRECTIONS {
        let (sources, len) = (direction.source(&pairs).total(), direction.target(&pairs).total() * d);
        let (y, grad) = (random.values(sources * d), random.values(len));
        let (mut out, mut d_y) = (rubbish(backend, len), rubbish(backend, sources * d));
        let there = upload(backend, &y);
        backend.barycenter(&plan, &pairs, direction, d, &there, &mut out).unwrap();
        let expected = oracle::barycenter(&cells, &pairs, direction, d, &y);
        assert_close("barycentre", &read(backend, &out, len), &expected, tolerance::<B>());
        // The map is linear: ⟨grad, B y⟩ = ⟨Bᵀ grad, y⟩, source by source.
        backend
            .barycenter_backward(&plan, &pairs, direction, d, &there, &upload(backend, &grad), &mut d_y, None)
            .unwrap();
        let d_y = read(backend, &d_y, sources * d);
        for source in [0, sources / 3, sources - 1] {
            let mut alone = vec![0.0; sources * d];
            alone[source * d..(source + 1) * d].copy_from_slice(&y[source * d..(source + 1) * d]);
            let expected = dot(&grad, &oracle::barycenter(&cells, &pairs, direction, d, &alone));
            let found = dot(&d_y[source * d..(source + 1) * d], &y[source * d..(source + 1) * d]);
            assert_close("d y", &[found], &[expected], tolerance::<B>());
        }
    }
}

/// D is affine and the shares of a target sum to 1 (spec 4, free algebra (i)).
fn code_then_decode_is_decode_then_average<B: Backend>(backend: &B) {
    let (mut random, pairs, d) = (Random(21), some_pairs(), 6);
    let dictionary = HostDictionary::random(&mut random, d, SPLIT.latents());
    let cells = random.between(pairs.cells.total(), 0.01, 1.0);
    for direction in DIRECTIONS {
        let codes = HostCodes::random(&mut random, direction.source(&pairs).total(), SPLIT);
        let mut y = rubbish(backend, codes.n * d);
        let (device_codes, device) = (codes.upload(backend), dictionary.upload(backend));
        backend.decode(&device_codes, Block::Shared, &device, true, &mut y).unwrap();
        let len = direction.target(&pairs).total() * d;
        let mut out = rubbish(backend, len);
        backend.barycenter(&plan_of(backend, &pairs, &cells), &pairs, direction, d, &y, &mut out).unwrap();

        let latents = SPLIT.latents();
        let dense = codes.dense(Block::Shared).concat();
        let mixed = oracle::barycenter(&cells, &pairs, direction, latents, &dense);
        let expected: Vec<f64> = mixed
            .chunks_exact(latents)
            .flat_map(|z| {
                let column = |x: usize| (0..latents).map(move |k| k * d + x);
                (0..d).map(move |x| (x, column(x))).collect::<Vec<_>>().into_iter().map(|(x, column)| {
                    let sum: f64 = z.iter().zip(column).map(|(z, at)| z * dictionary.w_dec[at]).sum();
                    sum + dictionary.b_dec[x]
                })
            })
            .collect();
        assert_close("decoded mean code", &read(backend, &out, len), &expected, tolerance::<B>());
    }
}

fn backward_is_the_derivative<B: Backend>(backend: &B) {
    let (mut random, pairs, d) = (Random(22), some_pairs(), 3);
    let cells = random.between(pairs.cells.total(), 0.2, 1.0);
    let plan = plan_of(backend, &pairs, &cells);
    for direction in DIRECTIONS {
        let y = random.values(direction.source(&pairs).total() * d);
        let probe = random.values(direction.target(&pairs).total() * d);
        let start = random.values(cells.len());
        let mut d_y = rubbish(backend, y.len());
        let mut d_plan = upload(backend, &start);
        let (device_y, grad) = (upload(backend, &y), upload(backend, &probe));
        backend
            .barycenter_backward(&plan, &pairs, direction, d, &device_y, &grad, &mut d_y, Some(&mut d_plan))
            .unwrap();
        let t = difference_tolerance::<B>();
        let by_y = central_differences(&y, |y| dot(&probe, &oracle::barycenter(&cells, &pairs, direction, d, y)));
        assert_close("d y", &read(backend, &d_y, y.len()), &by_y, t);
        let by_plan =
            central_differences(&cells, |cells| dot(&probe, &oracle::barycenter(cells, &pairs, direction, d, &y)));
        let by_plan: Vec<f64> = by_plan.iter().zip(&start).map(|(gradient, start)| gradient + start).collect();
        assert_close("d plan", &read(backend, &d_plan, start.len()), &by_plan, t);

        let mut alone = rubbish(backend, y.len());
        backend.barycenter_backward(&plan, &pairs, direction, d, &device_y, &grad, &mut alone, None).unwrap();
        assert_eq!(read(backend, &alone, y.len()), read(backend, &d_y, y.len()));
    }
}

fn an_empty_target_is_zero<B: Backend>(backend: &B) {
    let pairs = Pairs::new(&[2], &[2]).unwrap();
    let plan = plan_of(backend, &pairs, &[0.0, 0.0, 0.25, 0.75]);
    let mut out = rubbish(backend, 2);
    backend.barycenter(&plan, &pairs, Direction::T2V, 1, &upload(backend, &[2.0, 4.0]), &mut out).unwrap();
    assert_eq!(read(backend, &out, 2), [0.0, 3.5]);
}
