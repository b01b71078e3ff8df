//! What is asked of a heat map: which boxes, and which words ask for them (spec 6, target modes).

use lucid_data::BoxAnnotation;
use lucid_data::store::{KIND_CONTENT, PairInfo, TokenInfo};

use super::geometry::GridBox;
use super::heat::Asking;
use super::mask::Mask;
use super::score::Target;

/// Which boxes a heat map is judged against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetMode {
    /// All boxes of the image together; the whole caption asks.
    Union,
    /// The box of the largest area; the whole caption asks.
    Largest,
    /// Whichever single box fits best, for each score; the whole caption asks.
    Best,
    /// The boxes of one category; the caption's words that name it ask. Categories that are not named are left out.
    Category,
    /// The boxes of one phrase of the caption; its words ask.
    Phrase,
}

impl TargetMode {
    /// Every mode.
    pub const ALL: [Self; 5] = [Self::Union, Self::Largest, Self::Best, Self::Category, Self::Phrase];

    /// Name in options and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Union => "union",
            Self::Largest => "largest",
            Self::Best => "best",
            Self::Category => "category",
            Self::Phrase => "phrase",
        }
    }
}

/// One question: the words asking, and the targets of which the best counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Tokens of the first caption.
    pub asking: Asking,
    /// At least one.
    pub targets: Vec<Target>,
}

/// The whole caption.
#[must_use]
pub fn whole_caption(tokens: &TokenInfo) -> Asking {
    let all: Vec<usize> = (0..tokens.kinds.len()).collect();
    let content: Vec<usize> = all.iter().copied().filter(|&j| tokens.kinds[j] == KIND_CONTENT).collect();
    // A caption of nothing but its end still asks: with that.
    Asking { content: if content.is_empty() { all.clone() } else { content }, all }
}

/// Content tokens that overlap the byte span `[start, end)` of the caption.
#[must_use]
pub fn tokens_of_span(tokens: &TokenInfo, span: [usize; 2]) -> Vec<usize> {
    let overlaps = |[start, end]: [u32; 2]| start < end && (start as usize) < span[1] && span[0] < end as usize;
    (0..tokens.kinds.len()).filter(|&j| tokens.kinds[j] == KIND_CONTENT && overlaps(tokens.spans[j])).collect()
}

/// Boxes that count: not a crowd, and with something inside the image.
fn boxes_of(info: &PairInfo) -> Vec<(&BoxAnnotation, Region<'_>)> {
    let Some(size) = info.size.filter(|size| size[0] > 0 && size[1] > 0) else { return Vec::new() };
    let usable = info.boxes.iter().filter(|b| !b.crowd);
    usable.filter_map(|b| Some((b, Region::Box(GridBox::of(b, size, info.vision_grid)?)))).collect()
}

/// Where an object is.
#[derive(Clone, Copy)]
enum Region<'a> {
    Box(GridBox),
    Mask(&'a Mask),
}

impl Region<'_> {
    fn area(&self) -> f64 {
        match self {
            Self::Box(grid_box) => grid_box.area(),
            Self::Mask(mask) => mask.area(),
        }
    }

    /// The union of some, at least one, as a target.
    fn target(regions: &[Region], grid: [u32; 2]) -> Target {
        let masks: Vec<&Mask> = regions
            .iter()
            .filter_map(|region| if let Region::Mask(mask) = region { Some(*mask) } else { None })
            .collect();
        if masks.len() == regions.len() {
            return Target::of_mask(&Mask::union(&masks), grid);
        }
        let boxes = regions.iter().filter_map(|region| if let Region::Box(b) = region { Some(*b) } else { None });
        Target::new(boxes.collect(), grid)
    }
}

/// The masks of a pair's boxes, one each, where every box that counts has one; a crowd's is empty where it has none.
#[must_use]
pub fn masks_of(info: &PairInfo) -> Option<Vec<Mask>> {
    let [width, height] = info.size.map(|size| size.map(|side| side as usize)).filter(|size| size[0] > 0)?;
    let mask = |b: &BoxAnnotation| match &b.mask {
        Some(mask) => Some(Mask::new(width, mask.pixels())),
        None => b.crowd.then(|| Mask::new(width, vec![false; width * height])),
    };
    info.boxes.iter().map(mask).collect()
}

/// Whether grounding can be measured on a pair: it has a usable box.
#[must_use]
pub fn has_boxes(info: &PairInfo) -> bool {
    !boxes_of(info).is_empty()
}

/// The questions of one pair under a mode; none where it has no such box. With `masks`, one a box, in place of the boxes.
#[must_use]
pub fn queries(mode: TargetMode, info: &PairInfo, masks: Option<&[Mask]>, tokens: &TokenInfo) -> Vec<Query> {
    let boxes = match masks {
        None => boxes_of(info),
        Some(masks) => {
            let both = info.boxes.iter().zip(masks).filter(|(b, mask)| !b.crowd && mask.area() > 0.0);
            both.map(|(b, mask)| (b, Region::Mask(mask))).collect()
        }
    };
    if boxes.is_empty() {
        return Vec::new();
    }
    let target = |regions: Vec<Region>| Region::target(&regions, info.vision_grid);
    let whole = |targets: Vec<Target>| vec![Query { asking: whole_caption(tokens), targets }];
    match mode {
        TargetMode::Union => whole(vec![target(boxes.iter().map(|(_, b)| *b).collect())]),
        TargetMode::Largest => {
            // The first of equals, so that the order of annotations decides and not the sort.
            let largest = boxes.iter().fold(boxes[0].1, |a, (_, b)| if b.area() > a.area() { *b } else { a });
            whole(vec![target(vec![largest])])
        }
        TargetMode::Best => whole(boxes.iter().map(|(_, b)| target(vec![*b])).collect()),
        TargetMode::Phrase => grouped(&boxes, |b| b.phrase, |&span| tokens_of_span(tokens, span), target),
        TargetMode::Category => {
            let caption = info.captions.first().map_or("", String::as_str);
            let asking = |name: &String| {
                mentions(caption, name).into_iter().flat_map(|span| tokens_of_span(tokens, span)).collect()
            };
            grouped(&boxes, |b| b.category.clone(), asking, target)
        }
    }
}

/// One question for every value of `key`, in the order of first appearance; values for which no token asks are left out.
fn grouped<'a, K: PartialEq>(
    boxes: &[(&BoxAnnotation, Region<'a>)],
    key: impl Fn(&BoxAnnotation) -> Option<K>,
    asking: impl Fn(&K) -> Vec<usize>,
    target: impl Fn(Vec<Region<'a>>) -> Target,
) -> Vec<Query> {
    let mut groups: Vec<(K, Vec<Region>)> = Vec::new();
    for (annotation, grid_box) in boxes {
        let Some(value) = key(annotation) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == value) {
            Some((_, members)) => members.push(*grid_box),
            None => groups.push((value, vec![*grid_box])),
        }
    }
    let ask = |(value, members): (K, Vec<Region<'a>>)| {
        let tokens = asking(&value);
        (!tokens.is_empty()).then(|| Query { asking: Asking::tokens(tokens), targets: vec![target(members)] })
    };
    groups.into_iter().filter_map(ask).collect()
}

/// Byte spans of the caption that name a category: its words in sequence, whole words, any case, the last one singular
/// or plural in -s or -es. Other words for a category ("man" for "person") are not known here.
#[must_use]
pub fn mentions(caption: &str, category: &str) -> Vec<[usize; 2]> {
    let wanted: Vec<String> = category.split_whitespace().map(str::to_lowercase).collect();
    let words: Vec<([usize; 2], String)> =
        crate::words::words(caption).map(|span| (span, caption[span[0]..span[1]].to_lowercase())).collect();
    if wanted.is_empty() || words.len() < wanted.len() {
        return Vec::new();
    }
    let same = |word: &str, wanted: &str, last: bool| {
        word == wanted || (last && word.strip_prefix(wanted).is_some_and(|end| end == "s" || end == "es"))
    };
    let fits = |at: &[([usize; 2], String)]| {
        at.iter().zip(&wanted).enumerate().all(|(i, ((_, word), name))| same(word, name, i + 1 == wanted.len()))
    };
    words.windows(wanted.len()).filter(|at| fits(at)).map(|at| [at[0].0[0], at[at.len() - 1].0[1]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> PairInfo {
        let boxed = |x: f64, width: f64, category: &str, phrase: Option<[usize; 2]>, crowd: bool| BoxAnnotation {
            x,
            y: 0.0,
            width,
            height: 10.0,
            category: Some(category.into()),
            phrase,
            crowd,
            mask: None,
        };
        PairInfo {
            key: "a".into(),
            captions: vec!["Two dogs near a traffic light".into()],
            vision_grid: [1, 10],
            size: Some([100, 10]),
            boxes: vec![
                boxed(0.0, 20.0, "dog", Some([0, 8]), false),
                boxed(30.0, 10.0, "dog", Some([0, 8]), false),
                boxed(60.0, 30.0, "traffic light", Some([14, 29]), false),
                boxed(0.0, 100.0, "person", None, true),
                boxed(50.0, 5.0, "cat", None, false),
            ],
        }
    }

    /// Tokens: Two | dogs | near | a | traffic | light | end.
    fn tokens() -> TokenInfo<'static> {
        TokenInfo {
            ids: &[5, 6, 7, 8, 9, 10, 1],
            kinds: &[0, 0, 0, 0, 0, 0, 1],
            spans: &[[0, 3], [4, 8], [9, 13], [14, 15], [16, 23], [24, 29], [0, 0]],
        }
    }

    #[test]
    fn modes_choose_boxes_and_words() {
        let ask = |mode| queries(mode, &info(), None, &tokens());
        let union = ask(TargetMode::Union);
        assert_eq!(union.len(), 1);
        assert_eq!(union[0].asking, Asking { content: vec![0, 1, 2, 3, 4, 5], all: vec![0, 1, 2, 3, 4, 5, 6] });
        // 2 + 1 + 3 + 0.5 of ten cells: the crowd does not count.
        assert!((union[0].targets[0].score(&[1.0; 10]).mass_at_obj - 0.65).abs() < 1e-12);
        assert!((ask(TargetMode::Largest)[0].targets[0].score(&[1.0; 10]).mass_at_obj - 0.3).abs() < 1e-12);
        assert_eq!(ask(TargetMode::Best)[0].targets.len(), 4);
        let phrases = ask(TargetMode::Phrase);
        assert_eq!(phrases.iter().map(|q| q.asking.content.clone()).collect::<Vec<_>>(), [vec![0, 1], vec![3, 4, 5]]);
        let categories = ask(TargetMode::Category);
        assert_eq!(categories.iter().map(|q| q.asking.all.clone()).collect::<Vec<_>>(), [vec![1], vec![4, 5]]);
    }

    #[test]
    fn no_size_or_only_crowds_is_no_question() {
        let unsized_image = PairInfo { size: None, ..info() };
        assert!(!has_boxes(&unsized_image) && queries(TargetMode::Union, &unsized_image, None, &tokens()).is_empty());
        let mut crowd = info();
        crowd.boxes.retain(|b| b.crowd);
        assert!(!has_boxes(&crowd));
        assert!(has_boxes(&info()));
    }

    #[test]
    fn mentions_are_whole_words() {
        assert_eq!(mentions("A hotdog, two dogs; DOG!", "dog"), [[14, 18], [20, 23]]);
        assert_eq!(mentions("buses and a bus", "bus"), [[0, 5], [12, 15]]);
        assert!(mentions("a cattle", "cat").is_empty());
        assert!(mentions("", "cat").is_empty());
    }
}
