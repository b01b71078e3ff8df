//! The examination as a page of Markdown tables.

use super::locality::Detection;
use super::probes::{Probe, ProbeOf, ProbeScore};
use super::swaps::{Share, SwapScore};
use super::{Among, Examination, SwapRow};
use lucid_data::scenes::ConceptKind;
use std::fmt::{Display, Formatter, Result};

const NONE: &str = "–";

fn number(value: Option<f64>) -> String {
    value.map_or(NONE.into(), |v| format!("{v:.3}"))
}

fn line(f: &mut Formatter<'_>, cells: &[String]) -> Result {
    writeln!(f, "| {} |", cells.join(" | "))
}

fn head(f: &mut Formatter<'_>, cells: &[String]) -> Result {
    line(f, cells)?;
    writeln!(f, "|{}", "---|".repeat(cells.len()))
}

/// Part of the swaps of a kind: all, those whose wrong word fits nothing, those whose wrong word fits another object.
type Part = (&'static str, fn(&SwapScore) -> Option<Share>);

const PARTS: [Part; 3] = [
    ("", |s| Some(Share { accuracy: s.accuracy, count: s.count })),
    (": wrong word fits nothing", |s| s.absent),
    (": wrong word fits another object", |s| s.elsewhere),
];

fn swaps(f: &mut Formatter<'_>, sets: [&[SwapRow]; 2]) -> Result {
    let of_set = |name: &str| [name, "another's picture", "untrained"].map(String::from);
    let mut titles = vec!["one word swapped".to_string()];
    titles.extend(["unseen scenes", "held-out combinations"].into_iter().flat_map(of_set));
    titles.extend(["chance", "goal"].map(String::from));
    head(f, &titles)?;
    for kind in ConceptKind::ALL {
        for (name, part) in PARTS {
            let mut cells = vec![format!("{}{name}", kind.name())];
            let mut limits = None;
            for set in sets {
                let row = set.iter().find(|r| r.score.kind == kind);
                let share = row.and_then(|r| part(&r.score));
                cells.push(share.map_or(NONE.into(), |s| format!("{:.3} (n {})", s.accuracy, s.count)));
                cells.push(number(row.filter(|_| name.is_empty()).and_then(|r| r.score.other_picture)));
                cells.push(number(row.and_then(|r| part(&r.untrained)).map(|s| s.accuracy)));
                limits = limits.or(row.filter(|_| share.is_some()).map(|r| (r.chance, r.goal)));
            }
            if let Some((chance, goal)) = limits {
                cells.push(number(Some(chance)));
                cells.push(number(name.is_empty().then_some(goal)));
                line(f, &cells)?;
            }
        }
    }
    Ok(())
}

fn named(of: ProbeOf, kind: ConceptKind) -> String {
    match of {
        ProbeOf::Patch => kind.name().into(),
        ProbeOf::OwnWord => format!("{}, own word", kind.name()),
        ProbeOf::RestOfPhrase => format!("{}, rest of its phrase", kind.name()),
        ProbeOf::Filler => format!("{}, words that name nothing", kind.name()),
    }
}

/// One row a question and set, one column a hook.
fn probes(f: &mut Formatter<'_>, title: &str, all: &[Probe]) -> Result {
    let mut hooks: Vec<&str> = Vec::new();
    let mut questions = Vec::new();
    for probe in all {
        if !hooks.contains(&probe.hook.as_str()) {
            hooks.push(&probe.hook);
        }
        if !questions.contains(&(probe.of, probe.kind)) {
            questions.push((probe.of, probe.kind));
        }
    }
    let goals = all.iter().any(|p| p.goal.is_some());
    let mut cells = vec![title.to_string(), "states".into(), "chance".into()];
    cells.extend(hooks.iter().map(ToString::to_string));
    cells.extend(goals.then(|| "goal of the best".into()));
    head(f, &cells)?;
    type Pick = fn(&Probe) -> Option<(ProbeScore, f64)>;
    let rows: [(&str, Pick); 3] = [
        ("unseen", |p| p.unseen.map(|s| (s, s.accuracy))),
        ("held-out", |p| p.held_out.map(|s| (s, s.accuracy))),
        ("untrained", |p| p.unseen.map(|s| (s, s.untrained))),
    ];
    for (of, kind) in questions {
        let of_hook = |hook: &str| all.iter().find(|p| p.of == of && p.kind == kind && p.hook == hook);
        let first = hooks.first().and_then(|h| of_hook(h));
        for (name, pick) in rows {
            let Some((any, _)) = first.and_then(pick) else { continue };
            let mut cells =
                vec![format!("{}: {name}", named(of, kind)), any.count.to_string(), number(Some(any.chance))];
            cells.extend(hooks.iter().map(|h| number(of_hook(h).and_then(pick).map(|(_, value)| value))));
            let goal = first.and_then(|p| p.goal).filter(|_| name == "unseen");
            cells.extend(goals.then(|| number(goal)));
            line(f, &cells)?;
        }
    }
    Ok(())
}

impl Display for Examination {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        swaps(f, [&self.swaps.unseen, &self.swaps.held_out])?;
        writeln!(f)?;
        head(f, &["picture finds its caption (R@1)", "share", "untrained", "chance"].map(String::from))?;
        for row in &self.retrieval {
            let name = match row.among {
                Among::Independent => "among 256 independent scenes",
                Among::Families => "among 256 scenes in families of 8",
                Among::WithinFamily => "within a family of 8",
            };
            line(f, &[name.into(), number(Some(row.recall)), number(Some(row.untrained)), number(Some(row.chance))])?;
        }
        writeln!(f)?;
        probes(f, "a patch tells", &self.patch_probes)?;
        writeln!(f)?;
        let titles = ["a patch shows an object", "precision", "recall", "chance precision", "untrained precision"];
        let cells = titles.into_iter().chain(["untrained recall", "goal of the best precision"]);
        head(f, &cells.map(String::from).collect::<Vec<_>>())?;
        for row in &self.locality {
            let pair = |d: &Detection| [number(d.precision), number(d.recall)];
            let [precision, recall] = pair(&row.detection);
            let [control, control_recall] = pair(&row.untrained);
            let chance = number(Some(row.chance));
            let goal = number(Some(row.goal));
            line(f, &[row.hook.clone(), precision, recall, chance, control, control_recall, goal])?;
        }
        writeln!(f)?;
        probes(f, "a token tells", &self.token_probes)
    }
}
