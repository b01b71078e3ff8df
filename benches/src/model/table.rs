//! The model as Markdown: the tables of docs/gpu.md.

use std::fmt::Write as _;

use lucid_kernels::KernelError;

use super::cards::{CARDS, Card};
use super::designs::Change;
use super::{GOAL, Row, plan, predict};

/// Rows shorter than this on every card are summed up, in seconds.
const SMALL: f64 = 40e-6;

/// Cards of the tables.
fn shown() -> Vec<&'static Card> {
    ["H200", "H100", "4090"].into_iter().filter_map(|name| CARDS.iter().find(|card| card.name == name)).collect()
}

/// What the cards call a row: they differ in the kernel of the encoder's product.
fn names(rows: &[&Row]) -> String {
    let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    names.dedup();
    names.join(" or ")
}

/// All tables.
pub fn markdown() -> Result<String, KernelError> {
    let cards = shown();
    let predictions = cards.iter().map(|card| predict(card, &[])).collect::<Result<Vec<_>, _>>()?;
    let mut text = String::from("| kernel | launches | GFLOP | G instr | memory MB | cache MB |");
    for card in &cards {
        let _ = write!(text, " {} µs | bound |", card.name);
    }
    text.push_str("\n|---|--:|--:|--:|--:|--:|");
    text.push_str(&"--:|---|".repeat(cards.len()));
    text.push('\n');
    let (mut rest, mut launches) = (vec![0.0; cards.len()], 0.0);
    for (index, row) in predictions[0].rows.iter().enumerate() {
        let all: Vec<_> = predictions.iter().map(|prediction| &prediction.rows[index]).collect();
        if all.iter().all(|row| row.seconds < SMALL) {
            launches += row.launches;
            all.iter().zip(&mut rest).for_each(|(row, rest)| *rest += row.seconds);
            continue;
        }
        let work = &row.work;
        let issued = work.tensor + work.wgmma;
        let flops = if issued > 0.0 { issued } else { work.useful };
        let _ = write!(
            text,
            "| {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} |",
            names(&all),
            row.launches,
            flops / 1e9,
            work.instructions / 1e9,
            work.memory / 1e6,
            work.cache / 1e6
        );
        for row in all {
            let _ = write!(text, " {:.0} | {} |", row.seconds * 1e6, row.bound);
        }
        text.push('\n');
    }
    let _ = write!(text, "| others, each below {:.0} µs | {launches:.0} | | | | |", SMALL * 1e6);
    for rest in rest {
        let _ = write!(text, " {:.0} | |", rest * 1e6);
    }
    let total: f64 = predictions[0].rows.iter().map(|row| row.launches).sum();
    let _ = write!(text, "\n| **device, sum** | {total:.0} | | | | |");
    for prediction in &predictions {
        let _ = write!(text, " **{:.0}** | |", prediction.device * 1e6);
    }
    text.push_str("\n| host, launches (beside the device) | | | | | |");
    for prediction in &predictions {
        let _ = write!(text, " {:.0} | |", prediction.host * 1e6);
    }
    text.push_str("\n| **a step** (device or host, and five waits) | | | | | |");
    for prediction in &predictions {
        let _ = write!(text, " **{:.0}** | |", prediction.seconds * 1e6);
    }
    text.push_str("\n\nLaunches, FLOPs and bytes are those of the H200; they differ a little where a cache is larger or smaller.\n");
    changes(&mut text, cards[0])?;
    Ok(text)
}

fn changes(text: &mut String, card: &Card) -> Result<(), KernelError> {
    let now = predict(card, &[])?.seconds;
    let _ = write!(text, "\n### Changes, on an {}\n\n| change | saves alone, µs |\n|---|--:|\n", card.name);
    let mut alone = Change::ALL
        .into_iter()
        .map(|change| Ok((change, now - predict(card, &[change])?.seconds)))
        .collect::<Result<Vec<_>, KernelError>>()?;
    alone.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (change, saved) in alone {
        let _ = writeln!(text, "| {} | {:.0} |", change.about(), saved * 1e6);
    }
    let _ = writeln!(text, "\nEach where it brings most after those before it:");
    let _ = write!(text, "\n| change | step, ms | goal |\n|---|--:|---|\n| as it is | {:.2} | |\n", now * 1e3);
    for (change, seconds) in plan(card)? {
        let about = change.about();
        let short = about.split(" (").next().unwrap_or(about);
        let _ = writeln!(text, "| {short} | {:.2} | {} |", seconds * 1e3, if seconds <= GOAL { "met" } else { "" });
    }
    Ok(())
}
