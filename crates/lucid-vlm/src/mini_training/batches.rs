//! Draws the pictures and captions of one half of a batch as the tensors that the model takes.

use crate::mini_training::recipe::Part;
use crate::mini_training::tokens::caption_ids;
use candle_core::{Device, Result, Tensor};
use lucid_data::scenes::{Falsehoods, PATCH, Scene, Stream, false_captions, scene_with};

/// Pictures of one kind with their captions.
pub struct Batch {
    /// [n, P, 3·8·8], values in [−1, 1], ordered (channel, y, x).
    pub patches: Tensor,
    /// Position of every patch in the full grid, u32 [n, P]; `None` for whole pictures.
    pub positions: Option<Tensor>,
    /// Captions, u32 [n, L].
    pub ids: Tensor,
    /// False captions, u32 [n·K, L], those of one picture together; K may be 0.
    pub wrong_ids: Tensor,
}

/// Patches of a picture along one side of the model's grid.
const GRID: usize = 14;

/// The chosen patches of a scene, unfolded and normalised as SigLIP's preprocessing does (mean and deviation 0.5).
fn unfold(scene: &Scene, chosen: &[usize], out: &mut Vec<f32>) {
    let side = scene.truth.side;
    let grid = side / PATCH;
    for &patch in chosen {
        let (top, left) = ((patch / grid) * PATCH, (patch % grid) * PATCH);
        for channel in 0..3 {
            for y in top..top + PATCH {
                let row = &scene.rgb[(y * side + left) * 3..(y * side + left + PATCH) * 3];
                out.extend(row.chunks_exact(3).map(|p| f32::from(p[channel]) * (2.0 / 255.0) - 1.0));
            }
        }
    }
}

/// Scenes `first .. first + count` of `seed` as one part of a batch, each with `negatives` false captions; `text_length` ids a
/// caption.
///
/// A picture smaller than the grid lies at a random place of it; where the part asks for fewer patches than the picture has,
/// a random subset is seen.
pub fn draw(part: &Part, negatives: usize, seed: u64, first: u64, count: usize, text_length: usize) -> Result<Batch> {
    let mut values = Vec::with_capacity(count * part.patches * 3 * PATCH * PATCH);
    let mut positions = Vec::with_capacity(count * part.patches);
    let mut ids = Vec::with_capacity(count * text_length);
    let mut wrong_ids = Vec::with_capacity(count * negatives * text_length);
    let mut whole = false;
    for index in first..first + count as u64 {
        let scene = scene_with(seed, index, &part.scenes);
        let grid = scene.truth.grid();
        let mut stream = Stream::new(seed, index, 0xba7c);
        let mut chosen: Vec<usize> = (0..grid * grid).collect();
        whole = grid == GRID && part.patches == chosen.len();
        if part.patches < chosen.len() {
            stream.shuffle(&mut chosen);
            chosen.truncate(part.patches);
            chosen.sort_unstable();
        }
        let room = GRID + 1 - grid;
        let (top, left) = (stream.below(room), stream.below(room));
        positions.extend(chosen.iter().map(|&p| ((top + p / grid) * GRID + left + p % grid) as u32));
        unfold(&scene, &chosen, &mut values);
        ids.extend(caption_ids(&scene.caption, text_length));
        let wanted = Falsehoods { count: negatives, first: part.false_first, misplaced: part.misplaced };
        let mut wrong = false_captions(&scene, &wanted, &mut Stream::new(seed, index, 0xfa15e));
        // Where nothing can be false, the caption itself takes the place: it ranks with itself and moves nothing.
        wrong.resize(negatives, scene.caption);
        wrong.iter().for_each(|caption| wrong_ids.extend(caption_ids(caption, text_length)));
    }
    let device = Device::Cpu;
    let seen = values.len() / (count * 3 * PATCH * PATCH);
    Ok(Batch {
        patches: Tensor::from_vec(values, (count, seen, 3 * PATCH * PATCH), &device)?,
        positions: if whole { None } else { Some(Tensor::from_vec(positions, (count, seen), &device)?) },
        ids: Tensor::from_vec(ids, (count, text_length), &device)?,
        wrong_ids: Tensor::from_vec(wrong_ids, (count * negatives, text_length), &device)?,
    })
}

/// Whole scenes of one format as a batch: a picture smaller than the grid lies in its middle.
pub fn whole(scenes: &[Scene], text_length: usize) -> Result<Batch> {
    let grid = scenes.first().map_or(GRID, |s| s.truth.grid());
    let chosen: Vec<usize> = (0..grid * grid).collect();
    let corner = (GRID - grid) / 2;
    let mut values = Vec::with_capacity(scenes.len() * chosen.len() * 3 * PATCH * PATCH);
    scenes.iter().for_each(|s| unfold(s, &chosen, &mut values));
    let row: Vec<u32> = chosen.iter().map(|&p| ((corner + p / grid) * GRID + corner + p % grid) as u32).collect();
    let ids: Vec<u32> = scenes.iter().flat_map(|s| caption_ids(&s.caption, text_length)).collect();
    let device = Device::Cpu;
    Ok(Batch {
        patches: Tensor::from_vec(values, (scenes.len(), chosen.len(), 3 * PATCH * PATCH), &device)?,
        positions: if grid == GRID { None } else { Some(Tensor::from_vec(row, chosen.len(), &device)?) },
        ids: Tensor::from_vec(ids, (scenes.len(), text_length), &device)?,
        wrong_ids: Tensor::zeros((0, text_length), candle_core::DType::U32, &device)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::patchify;
    use lucid_data::scenes::SceneOptions;

    #[test]
    fn whole_pictures_are_unfolded_as_the_model_does() {
        let part =
            Part { scenes: SceneOptions::default(), count: 2, patches: 196, false_first: None, misplaced: false };
        let batch = draw(&part, 0, 5, 3, 2, 24).unwrap();
        assert!(batch.positions.is_none());
        let scene = scene_with(5, 4, &part.scenes);
        let planes: Vec<f32> = (0..3)
            .flat_map(|c| scene.rgb.iter().skip(c).step_by(3).map(|&v| f32::from(v) * (2.0 / 255.0) - 1.0))
            .collect();
        let pixels = Tensor::from_vec(planes, (1, 3, 112, 112), &Device::Cpu).unwrap();
        let expected: Vec<f32> = patchify(&pixels, 8).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let found: Vec<f32> = batch.patches.get(1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(expected, found);
    }

    #[test]
    fn dropped_patches_keep_their_positions() {
        let full =
            Part { scenes: SceneOptions::default(), count: 1, patches: 196, false_first: None, misplaced: false };
        let some = Part { patches: 50, ..full.clone() };
        let (all, few) = (draw(&full, 0, 5, 0, 1, 24).unwrap(), draw(&some, 2, 5, 0, 1, 24).unwrap());
        let at: Vec<u32> = few.positions.unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(at.windows(2).all(|w| w[0] < w[1]) && at.len() == 50);
        for (k, &position) in at.iter().enumerate() {
            let pick = |t: &Tensor, i: usize| t.get(0).unwrap().get(i).unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(pick(&few.patches, k), pick(&all.patches, position as usize));
        }
    }
}
