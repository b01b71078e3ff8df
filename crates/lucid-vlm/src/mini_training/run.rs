//! The training loop: two halves of a batch on two threads, one loss, one step; checkpoints that a later run goes on from
//! with the same bits.

use crate::error::VlmError;
use crate::examination::swaps::{SetScore, swaps};
use crate::mini_training::batches;
use crate::mini_training::export::publish;
use crate::mini_training::local;
use crate::mini_training::loss::{Loss, LossWeights, loss};
use crate::mini_training::optimiser::{Optimiser, StepOptions};
use crate::mini_training::recipe::Recipe;
use crate::mini_training::trainee::Trainee;
use candle_core::{DType, Device, Result as TensorResult, Tensor};
use lucid_data::scenes::{Canvas, SceneOptions, Wording};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// How a run is conducted; nothing here changes the result.
pub struct RunOptions {
    /// Go on from the state in the folder, if there is one.
    pub resume: bool,
    /// Time between saved states.
    pub save_every: Duration,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between small examinations in the log; 0 for none.
    pub examine_every: u64,
    /// Stop after this step, keeping the state.
    pub stop_after: Option<u64>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            resume: false,
            save_every: Duration::from_secs(120),
            log_every: 10,
            examine_every: 200,
            stop_after: None,
        }
    }
}

/// Scenes that one part of one step may use. From its fifth part on a step's indices are those of the next step's first parts; they
/// are other scenes nevertheless as long as these parts are of another format or crowd, as in the recipe.
const PER_STEP: u64 = 1 << 13;
const PER_PART: u64 = 1 << 11;

/// Patches that run through the model together: their states stay in the processor's cache.
const PORTION: usize = 800;

/// Pooled states of one half of a batch, with their graphs, and the ids of the captions.
struct Half {
    image: Tensor,
    text: Tensor,
    wrong: Tensor,
    ids: Tensor,
    /// The local loss, summed over the pictures; 0 where it weighs nothing.
    local: Tensor,
}

/// States of the patches and tokens of a part, portion by portion.
#[derive(Default)]
struct States {
    patches: Vec<Tensor>,
    tokens: Vec<Tensor>,
    ids: Vec<Tensor>,
    wrong: Vec<Tensor>,
    wrong_ids: Vec<Tensor>,
}

impl States {
    /// The local loss of the part's families, `size` pictures each, with `negatives` false captions a picture.
    fn local(&self, trainee: &Trainee, size: usize, negatives: usize) -> TensorResult<Tensor> {
        let join = |parts: &[Tensor]| Tensor::cat(parts, 0);
        let (patches, tokens, ids) = (join(&self.patches)?, join(&self.tokens)?, join(&self.ids)?);
        let (wrong, wrong_ids) = (join(&self.wrong)?, join(&self.wrong_ids)?);
        let count = patches.dim(0)?;
        let mut sum = Tensor::zeros((), patches.dtype(), patches.device())?;
        for first in (0..count).step_by(size) {
            let some = size.min(count - first);
            let own = |t: &Tensor, rows: usize| t.narrow(0, first * rows, some * rows)?.contiguous();
            let (patches, tokens, ids) = (own(&patches, 1)?, own(&tokens, 1)?, own(&ids, 1)?);
            let (wrong, wrong_ids) = (own(&wrong, negatives)?, own(&wrong_ids, negatives)?);
            let family =
                local::Family { patches: &patches, tokens: &tokens, ids: &ids, wrong: &wrong, wrong_ids: &wrong_ids };
            sum = (sum + local::loss(trainee, &family)?)?;
        }
        Ok(sum)
    }
}

fn forward(trainee: &Trainee, recipe: &Recipe, step: u64, half: u64) -> TensorResult<Half> {
    let length = recipe.config.text_config.max_position_embeddings;
    let (mut images, mut texts, mut wrong, mut ids) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut local = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    for (number, part) in recipe.stage(step).parts.iter().enumerate() {
        let count = part.count / 2;
        let first = step * PER_STEP + number as u64 * PER_PART + half * count as u64;
        let portion = (PORTION / part.patches).clamp(1, count);
        let mut done = 0;
        let mut states = States::default();
        while done < count {
            let some = portion.min(count - done);
            let batch = batches::draw(part, recipe.negatives, recipe.seed, first + done as u64, some, length)?;
            let output = trainee.model.vision_patches(&batch.patches, batch.positions.as_ref(), false)?;
            images.push(output.pooled.ok_or_else(|| candle_core::Error::Msg("the model has no pooling head".into()))?);
            let text = trainee.model.text(&Tensor::cat(&[&batch.ids, &batch.wrong_ids], 0)?, false)?;
            let (own, others) = ((0, some), (some, some * recipe.negatives));
            texts.push(text.pooled.narrow(0, own.0, own.1)?);
            wrong.push(text.pooled.narrow(0, others.0, others.1)?);
            if recipe.local_weight > 0.0 {
                states.patches.push(output.post_ln);
                states.tokens.push(text.final_ln.narrow(0, own.0, own.1)?);
                states.wrong.push(text.final_ln.narrow(0, others.0, others.1)?);
                states.ids.push(batch.ids.clone());
                states.wrong_ids.push(batch.wrong_ids);
            }
            ids.push(batch.ids);
            done += some;
        }
        if recipe.local_weight > 0.0 {
            local = (local + states.local(trainee, part.scenes.family.max(1), recipe.negatives)?)?;
        }
    }
    let join = |parts: &[Tensor]| Tensor::cat(parts, 0);
    Ok(Half { image: join(&images)?, text: join(&texts)?, wrong: join(&wrong)?, ids: join(&ids)?, local })
}

/// Gradients of one half, in the order of the parameters; empty where a parameter has none.
fn backward(trainee: &Trainee, half: &Half, loss: &Loss, start: usize, recipe: &Recipe) -> TensorResult<Vec<Vec<f32>>> {
    let n = half.image.dim(0)?;
    let k = half.wrong.dim(0)? / n;
    // The derivative of this sum is the loss's, since the factors are constants.
    let along = |pooled: &Tensor, grad: &Tensor, rows: usize| {
        (pooled * grad.narrow(0, start * rows, n * rows)?.contiguous()?)?.sum_all()
    };
    let mut sum = (along(&half.image, &loss.image, 1)? + along(&half.text, &loss.text, 1)?)?;
    if k > 0 {
        sum = (sum + along(&half.wrong, &loss.wrong, k)?)?;
    }
    if recipe.local_weight > 0.0 {
        // The batch has two halves.
        sum = (sum + (&half.local * (recipe.local_weight / (2 * n) as f64))?)?;
    }
    let grads = sum.backward()?;
    trainee
        .parameters
        .iter()
        .map(|p| match grads.get(&p.var) {
            Some(g) => g.contiguous()?.flatten_all()?.to_vec1(),
            None => Ok(Vec::new()),
        })
        .collect()
}

/// Runs `work` for both halves, each on a thread of its own whose inner loops stay on it.
fn both<T: Send>(pools: &[rayon::ThreadPool], work: impl Fn(usize) -> TensorResult<T> + Sync) -> TensorResult<Vec<T>> {
    let work = &work;
    let results: Vec<std::thread::Result<TensorResult<T>>> = std::thread::scope(|scope| {
        let handles: Vec<_> =
            pools.iter().enumerate().map(|(i, pool)| scope.spawn(move || pool.install(|| work(i)))).collect();
        handles.into_iter().map(|h| h.join()).collect()
    });
    results.into_iter().map(|r| r.map_err(|_| candle_core::Error::Msg("a training thread panicked".into()))?).collect()
}

/// What one step did.
pub struct Taken {
    /// Losses of the pooled states.
    pub loss: Loss,
    /// Local loss, per picture.
    pub local: f64,
    /// Norm of the whole gradient.
    pub norm: f64,
}

/// A training run.
pub struct Run {
    /// What is trained.
    pub recipe: Recipe,
    /// The parameters.
    pub trainee: Trainee,
    optimiser: Optimiser,
    /// Two pools of one thread each, for the halves.
    pools: Vec<rayon::ThreadPool>,
    /// One pool of two threads, for the optimiser.
    together: rayon::ThreadPool,
}

impl Run {
    /// A run at its first step.
    pub fn new(recipe: Recipe) -> Result<Self, VlmError> {
        let trainee = Trainee::new(&recipe)?;
        let optimiser = Optimiser::new(&trainee, recipe.muon);
        let pool = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .map_err(|e| VlmError::Compute(candle_core::Error::Msg(e.to_string())))
        };
        Ok(Self { recipe, trainee, optimiser, pools: vec![pool(1)?, pool(1)?], together: pool(2)? })
    }

    /// Steps taken so far.
    pub fn step(&self) -> u64 {
        self.optimiser.step
    }

    /// Takes one step.
    pub fn advance(&mut self) -> Result<Taken, VlmError> {
        let step = self.optimiser.step;
        let (trainee, recipe) = (&self.trainee, &self.recipe);
        let halves = both(&self.pools, |i| forward(trainee, recipe, step, i as u64))?;
        let join = |f: fn(&Half) -> Tensor| Tensor::cat(&halves.iter().map(f).collect::<Vec<_>>(), 0);
        let image = join(|h| h.image.detach())?;
        let (text, wrong) = (join(|h| h.text.detach())?, join(|h| h.wrong.detach())?);
        let weights = LossWeights {
            bag: recipe.bag_weight,
            word_pairs: recipe.word_pair_weight,
            rank: recipe.stage(step).rank_weight,
        };
        let loss = loss(trainee, &image, &text, &wrong, &join(|h| h.ids.clone())?, &weights)?;
        let size = halves[0].image.dim(0)?;
        let mut local = 0.0;
        for half in &halves {
            local += f64::from(half.local.to_scalar::<f32>()?) / (halves.len() * size) as f64;
        }
        let mut parts = both(&self.pools, |i| backward(trainee, &halves[i], &loss, i * size, recipe))?;
        let second = parts.pop().unwrap_or_default();
        let mut grads = parts.pop().unwrap_or_default();
        for (i, (total, more)) in grads.iter_mut().zip(second).enumerate() {
            if total.is_empty() {
                *total = vec![0.0; trainee.parameters[i].var.elem_count()];
            }
            total.iter_mut().zip(more).for_each(|(t, m)| *t += m);
        }
        for (name, direct) in &loss.parameters {
            if let Some(i) = trainee.parameters.iter().position(|p| p.name == *name) {
                grads[i].iter_mut().zip(direct).for_each(|(t, m)| *t += m);
            }
        }
        let options = StepOptions { rate: recipe.rate(step), weight_decay: recipe.weight_decay, clip: recipe.clip };
        let norm = self.optimiser.apply(trainee, &grads, &options, &self.together)?;
        if !norm.is_finite() || !loss.pairs.is_finite() || !local.is_finite() {
            return Err(VlmError::Compute(candle_core::Error::Msg(format!(
                "step {step}: loss or gradient not finite"
            ))));
        }
        Ok(Taken { loss, local, norm })
    }

    /// Parameters, moments and step as one file.
    pub fn save(&self, path: &Path) -> Result<(), VlmError> {
        let bytes_of = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let mut buffers = Vec::new();
        for (i, p) in self.trainee.parameters.iter().enumerate() {
            let moments = &self.optimiser.moments[i];
            buffers.push((format!("value.{}", p.name), bytes_of(&self.trainee.values(i)?)));
            buffers.push((format!("first.{}", p.name), bytes_of(&moments.first)));
            buffers.push((format!("second.{}", p.name), bytes_of(&moments.second)));
        }
        let failed = |e: safetensors::SafeTensorError| VlmError::File {
            file: path.display().to_string(),
            reason: e.to_string(),
        };
        let mut views = Vec::new();
        for (name, bytes) in &buffers {
            views.push((name.clone(), TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(failed)?));
        }
        let metadata = HashMap::from([("step".to_string(), self.optimiser.step.to_string())]);
        publish(path, &serialize(views, Some(metadata)).map_err(failed)?)
    }

    /// Goes on from what [`Run::save`] wrote.
    pub fn restore(&mut self, path: &Path) -> Result<(), VlmError> {
        let failed = |reason: String| VlmError::File { file: path.display().to_string(), reason };
        let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| failed(e.to_string()))?;
        let state = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.to_string()))?;
        let read = |name: String, count: usize| -> Result<Vec<f32>, VlmError> {
            let view = state.tensor(&name).map_err(|e| failed(format!("{name}: {e}")))?;
            let mut values = Vec::with_capacity(count);
            for four in view.data().chunks_exact(4) {
                values.push(f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            }
            if values.len() != count {
                return Err(failed(format!("{name} holds {} values, the recipe's model has {count}", values.len())));
            }
            Ok(values)
        };
        for i in 0..self.trainee.parameters.len() {
            let name = self.trainee.parameters[i].name.clone();
            let moments = &self.optimiser.moments[i];
            let (first, second) = (moments.first.len(), moments.second.len());
            self.trainee.set(i, read(format!("value.{name}"), first)?)?;
            self.optimiser.moments[i].first = read(format!("first.{name}"), first)?;
            self.optimiser.moments[i].second = read(format!("second.{name}"), second)?;
        }
        let step = header.metadata().as_ref().and_then(|m| m.get("step")).and_then(|s| s.parse().ok());
        self.optimiser.step = step.ok_or_else(|| failed("no step in the header".into()))?;
        Ok(())
    }
}

/// Swaps on a few single objects and scenes, for the log.
fn probe(run: &Run) -> Result<Vec<SetScore>, VlmError> {
    let single = SceneOptions { canvas: Canvas::Single, wording: Wording::Full, ..SceneOptions::default() };
    let model = &run.trainee.model;
    run.pools[0].install(|| {
        Ok(vec![
            swaps(model, "single", 256, 0x0005_eed1, &single)?,
            swaps(model, "scenes", 256, 0x0005_eed2, &SceneOptions::default())?,
        ])
    })
}

/// Runs `recipe` in `folder` to its end (or `stop_after`): `state.safetensors` and `log.jsonl` there. `said` hears every line.
pub fn train(recipe: Recipe, folder: &Path, options: &RunOptions, said: &mut dyn FnMut(&str)) -> Result<Run, VlmError> {
    let failed = |e: std::io::Error| VlmError::File { file: folder.display().to_string(), reason: e.to_string() };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let state = folder.join("state.safetensors");
    let mut run = Run::new(recipe)?;
    if options.resume && state.exists() {
        run.restore(&state)?;
        said(&format!("going on at step {}", run.step()));
    }
    let mut log = OpenOptions::new().create(true).append(true).open(folder.join("log.jsonl")).map_err(failed)?;
    let last = options.stop_after.unwrap_or(u64::MAX).min(run.recipe.steps());
    let (start, mut saved, mut seen) = (Instant::now(), Instant::now(), 0_usize);
    while run.step() < last {
        let stage = run.recipe.stage(run.step()).clone();
        seen += stage.parts.iter().map(|p| p.count).sum::<usize>();
        let Taken { loss, local, norm } = run.advance()?;
        let step = run.step();
        if step % options.log_every == 0 || step == last {
            let line = json!({
                "step": step, "stage": stage.name, "pairs": loss.pairs, "bag": loss.bag, "word_pairs": loss.word_pairs, "rank": loss.rank, "local": local,
                "first": loss.first,
                "rate": run.recipe.rate(step - 1), "norm": norm, "seconds": start.elapsed().as_secs_f64(),
                "per_second": seen as f64 / start.elapsed().as_secs_f64(),
            });
            writeln!(log, "{line}").map_err(failed)?;
            said(&line.to_string());
        }
        if options.examine_every > 0 && step % options.examine_every == 0 {
            for set in probe(&run)? {
                let scores: serde_json::Map<_, _> =
                    set.swaps.iter().map(|s| (s.kind.name().into(), json!((s.accuracy * 1e3).round() / 1e3))).collect();
                let line = json!({ "step": step, "swaps": set.name, "accuracy": scores });
                writeln!(log, "{line}").map_err(failed)?;
                said(&line.to_string());
            }
        }
        if saved.elapsed() >= options.save_every {
            run.save(&state)?;
            saved = Instant::now();
        }
    }
    run.save(&state)?;
    Ok(run)
}
