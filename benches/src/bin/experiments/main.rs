//! The experiments of docs/experiments.md: every variant of a question, trained and measured on several seeds, as a table.
//!
//! `experiments [QUESTION …] [--seeds 0,1,2] [--data scenes|synth] [--cache DIR] [--backbone mini] [--layers V,T]
//! [--pairs N] [--held-out N] [--preset NAME] [--base JSON] [--quantile Q] [--cluster-cosine C] [--variant NAME=JSON …]`: questions stand in `questions.json`;
//! `--variant` asks one of your own. Runs that the cache holds are not repeated.
#![allow(missing_docs)]

mod data;
mod discovery;
mod measure;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use data::{Data, Result, ScenesOptions};
use lucid_interpret::InterpretOptions;
use lucid_sae::Preset;
use measure::{Labels, Numbers, measure};
use serde_json::{Map, Value, json};

/// What the tables show unless asked otherwise: `mass` is plan mass over that of the uniform plan, `gap` cross R² above that of
/// another pair's caption, `reached` cross R² over its ceiling.
const COLUMNS: [&str; 17] = [
    "identity",
    "mass.color",
    "mass.pattern",
    "mass.shape",
    "mass.size",
    "mass.concept",
    "labels.concepts",
    "labels.right",
    "t2v",
    "t2v.gap",
    "t2v.ceiling",
    "v2t",
    "v2t.gap",
    "v2t.reached",
    "r2.vision",
    "r2.text",
    "maxfreq",
];

/// What it is about, the columns of its own where it has some, and the variants: a name and what each changes.
type Question = (String, Option<Vec<String>>, Vec<(String, Value)>);

struct Options {
    questions: Vec<String>,
    seeds: Vec<u64>,
    synth: bool,
    cache: PathBuf,
    scenes: ScenesOptions,
    preset: Preset,
    base: Value,
    variants: Vec<(String, Value)>,
    /// In place of a question's own and the usual ones.
    columns: Option<Vec<String>>,
    labels: Labels,
    /// Runs at a time.
    jobs: usize,
}

fn parse() -> Result<Options> {
    let mut options = Options {
        questions: Vec::new(),
        seeds: vec![0, 1, 2],
        synth: false,
        cache: PathBuf::from("runs/experiments"),
        scenes: ScenesOptions {
            backbone: "mini".into(),
            layers: vec!["vision.post_ln".into(), "text.block:0".into()],
            pairs: 1200,
            held_out: 300,
            keep_eos: true,
        },
        preset: Preset::Default,
        base: json!({
            "initialise": "coactivation", "dShared": 96, "dPrivate": 320, "kShared": 10, "kPrivate": 10, "beta": 0.05,
            "gamma": 1, "epsilon": 0.05, "batchPairs": 32, "lr": 3e-3, "steps": 300
        }),
        variants: Vec::new(),
        columns: None,
        labels: Labels { quantile: 0.7, cluster_cosine: InterpretOptions::default().cluster_cosine },
        jobs: 2,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--seeds" => options.seeds = value()?.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?,
            "--data" => options.synth = value()? == "synth",
            "--cache" => options.cache = value()?.into(),
            "--backbone" => options.scenes.backbone = value()?,
            "--layers" => options.scenes.layers = value()?.split(',').map(Into::into).collect(),
            "--pairs" => options.scenes.pairs = value()?.parse()?,
            "--held-out" => options.scenes.held_out = value()?.parse()?,
            "--no-eos" => options.scenes.keep_eos = false,
            "--preset" => options.preset = Preset::parse(&value()?)?,
            "--base" => options.base = merged(&options.base, &serde_json::from_str(&value()?)?),
            "--quantile" => options.labels.quantile = value()?.parse()?,
            "--cluster-cosine" => options.labels.cluster_cosine = value()?.parse()?,
            "--jobs" => options.jobs = value()?.parse()?,
            "--columns" => options.columns = Some(value()?.split(',').map(Into::into).collect()),
            "--variant" => {
                let text = value()?;
                let (name, json) = text.split_once('=').ok_or("--variant NAME=JSON")?;
                options.variants.push((name.into(), serde_json::from_str(json)?));
            }
            other if other.starts_with("--") => return Err(format!("unknown option {other}").into()),
            name => options.questions.push(name.into()),
        }
    }
    Ok(options)
}

/// Remembers a run in `file`, a line each.
fn keep(file: &Path, key: &Value, numbers: Numbers) -> Result<Numbers> {
    let mut out = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    out.write_all(format!("{}\n", json!({ "key": key, "numbers": numbers })).as_bytes())?;
    Ok(numbers)
}

/// `over` on top of `base`.
fn merged(base: &Value, over: &Value) -> Value {
    let mut all: Map<String, Value> = base.as_object().cloned().unwrap_or_default();
    all.extend(over.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}

/// Mean and (sample) standard deviation.
fn spread(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, square.sqrt())
}

fn table(rows: &[(String, Vec<Numbers>)], columns: &[String]) {
    let known = |column: &&String| rows.iter().flat_map(|(_, runs)| runs).any(|run| run.contains_key(*column));
    let all: Vec<&String> = columns.iter().filter(known).collect();
    println!(
        "| | {} |\n|---|{}",
        all.iter().map(|c| c.as_str()).collect::<Vec<_>>().join(" | "),
        "---|".repeat(all.len())
    );
    for (name, runs) in rows {
        let cell = |column: &&String| {
            let values: Vec<f64> = runs.iter().filter_map(|n| n.get(*column).copied()).collect();
            if values.is_empty() {
                return "–".to_string();
            }
            let (mean, deviation) = spread(&values);
            if values.len() > 1 { format!("{mean:.3} ± {deviation:.3}") } else { format!("{mean:.3}") }
        };
        println!("| {name} | {} |", all.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
}

fn main() -> Result<()> {
    let options = parse()?;
    std::fs::create_dir_all(&options.cache)?;
    let file = options.cache.join("results.jsonl");
    let mut known: BTreeMap<String, Numbers> = BTreeMap::new();
    for line in std::fs::read_to_string(&file).unwrap_or_default().lines() {
        let line: Value = serde_json::from_str(line)?;
        known.insert(line["key"].to_string(), serde_json::from_value(line["numbers"].clone())?);
    }
    let mut asked: Vec<Question> = Vec::new();
    let questions: Value = serde_json::from_str(include_str!("questions.json"))?;
    for name in &options.questions {
        let question = questions.get(name).ok_or_else(|| format!("no question {name}"))?;
        let about = question["about"].as_str().unwrap_or(name).to_owned();
        let columns = serde_json::from_value(question["columns"].clone())?;
        asked.push((about, columns, serde_json::from_value(question["variants"].clone())?));
    }
    if !options.variants.is_empty() {
        asked.push(("variants".into(), None, options.variants.clone()));
    }
    let data: Vec<Data> = options
        .seeds
        .iter()
        .map(|&seed| {
            if options.synth {
                data::activations(options.scenes.pairs, options.scenes.held_out, seed)
            } else {
                data::scenes(&options.scenes, seed, &options.cache)
            }
        })
        .collect::<Result<_>>()?;
    for (about, columns, variants) in asked {
        let mut work = Vec::new();
        for (label, over) in &variants {
            for (at, &seed) in options.seeds.iter().enumerate() {
                let config = merged(&options.base, over);
                let stores = [data[at].train.fingerprint(), data[at].held_out.fingerprint()];
                let key = json!([stores, options.preset.name(), config, seed, options.labels]);
                work.push((label.clone(), at, seed, config, key));
            }
        }
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Result<Numbers>)>> = Mutex::new(Vec::new());
        // One run a thread wastes less than one run on all of them.
        std::thread::scope(|scope| {
            for _ in 0..options.jobs {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some((_, at, seed, config, key)) = work.get(index) else { break };
                        let result = match known.get(&key.to_string()) {
                            Some(numbers) => Ok(numbers.clone()),
                            None => measure(&data[*at], options.preset, config, *seed, options.labels)
                                .and_then(|numbers| keep(&file, key, numbers)),
                        };
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                    }
                });
            }
        });
        let mut results = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(index, _)| *index);
        let mut rows: Vec<(String, Vec<Numbers>)> =
            variants.iter().map(|(label, _)| (label.clone(), Vec::new())).collect();
        for (index, result) in results {
            let (label, numbers) = (&work[index].0, result?);
            if let Some((_, row)) = rows.iter_mut().find(|(l, _)| l == label) {
                row.push(numbers);
            }
        }
        println!("\n### {about}\n");
        let usual = || COLUMNS.map(Into::into).to_vec();
        table(&rows, &options.columns.clone().or(columns).unwrap_or_else(usual));
    }
    Ok(())
}
