//! Stage 4: greedy leader clustering of a latent's hit concepts, and the name that follows.

/// A concept that hit a latent.
#[derive(Debug, Clone, PartialEq)]
pub struct HitConcept {
    /// Its position in the library.
    pub concept: u32,
    /// Images in which it chose this latent.
    pub hits: u64,
    /// Largest confidence among them.
    pub confidence: f64,
}

/// Concepts around a leader.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The leader first, then the others in the order they were visited: by falling hits, then by text.
    pub members: Vec<HitConcept>,
}

impl Cluster {
    /// Hits of all members.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.members.iter().map(|m| m.hits).sum()
    }
}

/// Clusters concepts: visited by falling hits, then by text, each joins the first leader whose embedding has a cosine of at
/// least `cosine` with its own, or becomes a leader. The clusters come by falling size (number of concepts), then by
/// falling hits, then in the order their leaders were visited.
///
/// `name` and `embedding` give a concept's text and its pooled embedding.
pub fn cluster<'a>(
    mut concepts: Vec<HitConcept>,
    name: impl Fn(u32) -> &'a str,
    embedding: impl Fn(u32) -> &'a [f32],
    cosine: f64,
) -> Vec<Cluster> {
    concepts.sort_by(|a, b| b.hits.cmp(&a.hits).then_with(|| name(a.concept).cmp(name(b.concept))));
    let mut clusters: Vec<Cluster> = Vec::new();
    for concept in concepts {
        let own = embedding(concept.concept);
        let home = clusters.iter_mut().find(|c| cosine_of(embedding(c.members[0].concept), own) >= cosine);
        match home {
            Some(cluster) => cluster.members.push(concept),
            None => clusters.push(Cluster { members: vec![concept] }),
        }
    }
    // Stable: equal clusters keep the order of their leaders.
    clusters.sort_by(|a, b| b.members.len().cmp(&a.members.len()).then_with(|| b.hits().cmp(&a.hits())));
    clusters
}

/// Share of all concepts that lies in the largest cluster; `None` without clusters.
#[must_use]
pub fn purity(clusters: &[Cluster]) -> Option<f64> {
    let all: usize = clusters.iter().map(|c| c.members.len()).sum();
    clusters.first().map(|largest| largest.members.len() as f64 / all as f64)
}

/// Cosine of two embeddings; 0 where either is zero.
fn cosine_of(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["lake", "river", "sea", "fork", "spoon"];
    const EMBEDDINGS: [[f32; 2]; 5] = [[1.0, 0.0], [0.9, 0.1], [0.8, 0.6], [0.0, 1.0], [0.1, 0.9]];

    fn hit(concept: u32, hits: u64) -> HitConcept {
        HitConcept { concept, hits, confidence: 1.0 }
    }

    fn of(hits: &[(u32, u64)], cosine: f64) -> Vec<Vec<&'static str>> {
        let concepts = hits.iter().map(|&(c, h)| hit(c, h)).collect();
        let clusters = cluster(concepts, |c| NAMES[c as usize], |c| EMBEDDINGS[c as usize].as_slice(), cosine);
        clusters.iter().map(|c| c.members.iter().map(|m| NAMES[m.concept as usize]).collect()).collect()
    }

    #[test]
    fn leaders_are_met_in_order_of_hits() {
        assert_eq!(
            of(&[(3, 2), (0, 9), (1, 9), (2, 1), (4, 1)], 0.78),
            [vec!["lake", "river", "sea"], vec!["fork", "spoon"]]
        );
        // With more hits than lake, sea leads; lake and river reach it at 0.8 and 0.85.
        assert_eq!(of(&[(2, 20), (0, 9), (1, 9)], 0.78), [vec!["sea", "lake", "river"]]);
        // Between equal sizes hits decide, and between equal hits the text decides who leads.
        assert_eq!(of(&[(3, 3), (0, 2)], 0.78), [vec!["fork"], vec!["lake"]]);
        assert_eq!(of(&[(3, 2), (0, 2)], 0.78), [vec!["fork"], vec!["lake"]]);
    }

    #[test]
    fn purity_is_the_share_of_the_largest() {
        let concepts = [(0, 5), (1, 4), (2, 3), (3, 2)].map(|(c, h)| hit(c, h)).to_vec();
        let clusters = cluster(concepts, |c| NAMES[c as usize], |c| EMBEDDINGS[c as usize].as_slice(), 0.78);
        assert_eq!(purity(&clusters), Some(0.75));
        assert_eq!(clusters[0].hits(), 12);
        assert_eq!(purity(&[]), None);
    }
}
