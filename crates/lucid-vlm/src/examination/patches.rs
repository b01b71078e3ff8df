//! What each patch of a backbone's grid shows of a scene.

use crate::config::VisionConfig;
use lucid_data::scenes::{ATTRIBUTES, SceneTruth, Stream};

/// Patches of every scene drawn whatever they show, so that their mixture is that of the pictures.
const DRAWN: usize = 48;

/// Share of the area of every patch that the background (first) and each object show, [patches, 1 + objects] row by row. The
/// scene is squashed to the model's input, so a patch covers a rectangle of it; its border may run through pixels.
pub(super) fn patch_shares(truth: &SceneTruth, vision: &VisionConfig) -> Vec<f64> {
    let (grid, owners) = (vision.side(), truth.objects.len() + 1);
    let pixel = |patches: usize| (patches * vision.patch_size * truth.side) as f64 / vision.image_size as f64;
    // The pixels that row or column `p` of the grid covers, with the covered part of each.
    let covered: Vec<Vec<(usize, f64)>> = (0..grid)
        .map(|p| {
            let (from, to) = (pixel(p), pixel(p + 1));
            let part = |i: usize| to.min(i as f64 + 1.0) - from.max(i as f64);
            (from as usize..truth.side).map(|i| (i, part(i))).take_while(|(_, part)| *part > 0.0).collect()
        })
        .collect();
    let area = pixel(1) * pixel(1);
    let mut shares = vec![0f64; grid * grid * owners];
    for (patch, share) in shares.chunks_exact_mut(owners).enumerate() {
        for &(y, height) in &covered[patch / grid] {
            for &(x, width) in &covered[patch % grid] {
                share[usize::from(truth.owner[y * truth.side + x])] += height * width;
            }
        }
        share.iter_mut().for_each(|s| *s /= area);
    }
    shares
}

/// One patch that is probed, and what it shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Patch {
    /// Position in the grid, row-major.
    pub patch: usize,
    /// Shape, colour, pattern and size of the object that owns at least half of it.
    pub object: Option<[usize; 4]>,
    /// The background, where it owns at least half of the patch.
    pub background: Option<usize>,
    /// Whether objects together own at least half of it.
    pub covered: bool,
    /// Whether it was drawn without regard to what it shows.
    pub drawn: bool,
}

/// The patches of scene `index` that are probed: every one that an object owns, and [`DRAWN`] at random.
pub(super) fn choose(truth: &SceneTruth, vision: &VisionConfig, seed: u64, index: u64) -> Vec<Patch> {
    let owners = truth.objects.len() + 1;
    let mut order: Vec<usize> = (0..vision.patches()).collect();
    Stream::new(seed, index, 0xd4a3).shuffle(&mut order);
    let mut drawn = vec![false; order.len()];
    order.iter().take(DRAWN).for_each(|&p| drawn[p] = true);
    let shares = patch_shares(truth, vision);
    let patches = shares.chunks_exact(owners).enumerate().map(|(patch, share)| {
        let owner = (1..owners).find(|&o| share[o] >= 0.5).map(|o| &truth.objects[o - 1]);
        Patch {
            patch,
            object: owner.map(|o| ATTRIBUTES.map(|kind| o.value(kind).unwrap_or_default())),
            background: (share[0] >= 0.5).then(|| truth.background.index()),
            covered: share[1..].iter().sum::<f64>() >= 0.5,
            drawn: drawn[patch],
        }
    });
    patches.filter(|p| p.drawn || p.object.is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lucid_data::scenes::{Kind, Split, scene};

    fn vision(image_size: usize, patch_size: usize) -> VisionConfig {
        VisionConfig { image_size, patch_size, ..VisionConfig::default() }
    }

    #[test]
    fn shares_are_the_scenes_own_on_its_grid() {
        for index in 0..20 {
            let truth = scene(5, index, Split::All, Kind::Random).truth;
            // The same grid at another resolution covers the same rectangles.
            for config in [vision(112, 8), vision(224, 16)] {
                let shares = patch_shares(&truth, &config);
                for (patch, share) in shares.chunks_exact(truth.objects.len() + 1).enumerate() {
                    let own: Vec<f64> = truth.object_fractions(patch).iter().map(|&s| f64::from(s)).collect();
                    assert_eq!(share[1..], own, "scene {index}, patch {patch}");
                }
            }
        }
    }

    #[test]
    fn shares_of_other_grids_sum_to_one_and_keep_the_area() {
        for index in 0..20 {
            let truth = scene(5, index, Split::All, Kind::Random).truth;
            let owners = truth.objects.len() + 1;
            // Patches of 16.6, 9.3 and 56 pixels.
            for config in [vision(27, 4), vision(48, 4), vision(32, 16)] {
                let shares = patch_shares(&truth, &config);
                assert_eq!(shares.len(), config.patches() * owners);
                for share in shares.chunks_exact(owners) {
                    assert!((share.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{share:?}");
                }
                if config.image_size % config.patch_size == 0 {
                    for o in 0..owners {
                        let of_patches: f64 =
                            shares.iter().skip(o).step_by(owners).sum::<f64>() / config.patches() as f64;
                        let pixels = truth.owner.iter().filter(|&&w| usize::from(w) == o).count();
                        let of_pixels = pixels as f64 / truth.owner.len() as f64;
                        assert!((of_patches - of_pixels).abs() < 1e-12, "owner {o}: {of_patches} and {of_pixels}");
                    }
                }
            }
        }
    }

    #[test]
    fn chosen_patches_hold_every_object_patch() {
        let scene = scene(5, 3, Split::All, Kind::Random);
        let chosen = choose(&scene.truth, &vision(112, 8), 5, 3);
        assert_eq!(chosen.iter().filter(|p| p.drawn).count(), DRAWN);
        for patch in 0..196 {
            let owner = scene.truth.object_fractions(patch).iter().position(|&s| s >= 0.5);
            let found = chosen.iter().find(|p| p.patch == patch);
            match owner {
                Some(o) => {
                    let expected = ATTRIBUTES.map(|k| scene.truth.objects[o].value(k).unwrap());
                    assert_eq!(found.unwrap().object, Some(expected));
                }
                None => assert!(found.is_none_or(|p| p.object.is_none())),
            }
        }
    }
}
