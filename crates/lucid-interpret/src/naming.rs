//! From hits to labels: stage 4 of Algorithm 1 for every shared latent.

use std::collections::HashMap;

use crate::algorithm1::cluster::{Cluster, HitConcept, cluster, purity};
use crate::algorithm1::library::ConceptStates;
use crate::algorithm1::matching::Peak;
use crate::atlas::{AtlasLatent, Densities, InterpretOptions, NamedCluster, Reason, Term};

/// Hits by latent and concept.
#[derive(Debug, Clone, Default)]
pub(crate) struct HitCounts {
    /// The threshold that decided; none where no concept met any image.
    pub threshold: Option<f64>,
    d_shared: usize,
    counts: HashMap<(u32, u32), (u64, f64)>,
    concepts: HashMap<u32, u64>,
}

impl HitCounts {
    pub(crate) fn new(d_shared: usize) -> Self {
        Self { d_shared, ..Self::default() }
    }

    pub(crate) fn add(&mut self, peak: &Peak) {
        let entry = self.counts.entry((peak.latent, peak.concept)).or_default();
        *entry = (entry.0 + 1, entry.1.max(peak.confidence));
        *self.concepts.entry(peak.concept).or_default() += 1;
    }

    /// Hits of a concept that chose a latent.
    pub(crate) fn of(&self, latent: u32, concept: u32) -> u64 {
        self.counts.get(&(latent, concept)).map_or(0, |&(hits, _)| hits)
    }

    /// Hits of a concept.
    pub(crate) fn of_concept(&self, concept: u32) -> u64 {
        self.concepts.get(&concept).copied().unwrap_or(0)
    }

    fn by_latent(&self) -> Vec<Vec<HitConcept>> {
        let mut lists = vec![Vec::new(); self.d_shared];
        for (&(latent, concept), &(hits, confidence)) in &self.counts {
            lists[latent as usize].push(HitConcept { concept, hits, confidence });
        }
        lists
    }
}

/// Every shared latent with its clusters and, where the evidence allows it, its label. Density, words and pictures are
/// left empty.
pub(crate) fn name_latents(
    concepts: &ConceptStates,
    counts: &HitCounts,
    options: &InterpretOptions,
) -> Vec<AtlasLatent> {
    let width = concepts.pooled_width();
    let name = |concept: u32| concepts.names[concept as usize].as_str();
    let embedding = |concept: u32| &concepts.pooled[concept as usize * width..(concept as usize + 1) * width];
    let of_latent = |(latent, hits): (usize, Vec<HitConcept>)| {
        let clusters = cluster(hits, name, embedding, options.cluster_cosine);
        name_latent(latent as u32, &clusters, name, options)
    };
    counts.by_latent().into_iter().enumerate().map(of_latent).collect()
}

fn name_latent<'a>(
    latent: u32,
    clusters: &[Cluster],
    name: impl Fn(u32) -> &'a str,
    options: &InterpretOptions,
) -> AtlasLatent {
    let hits: u64 = clusters.iter().map(Cluster::hits).sum();
    let purity = purity(clusters);
    let reason = match purity {
        None => Some(Reason::NoHits),
        Some(_) if hits < options.min_hits => Some(Reason::FewHits),
        Some(purity) if purity < options.min_purity => Some(Reason::LowPurity),
        Some(_) => None,
    };
    let members =
        |cluster: &Cluster| cluster.members.iter().map(|member| name(member.concept).to_owned()).collect::<Vec<_>>();
    let label = match (reason, clusters.first()) {
        (None, Some(largest)) => {
            let terms: Vec<String> = members(largest).into_iter().take(options.label_terms).collect();
            Some(terms.join(", "))
        }
        _ => None,
    };
    let term = |member: &HitConcept| Term {
        term: name(member.concept).to_owned(),
        concept: member.concept,
        hits: member.hits,
        confidence: member.confidence,
    };
    AtlasLatent {
        latent,
        label,
        reason,
        top_terms: clusters.iter().flat_map(|cluster| &cluster.members).take(options.top_terms).map(term).collect(),
        purity,
        hits,
        clusters: clusters
            .iter()
            .map(|cluster| NamedCluster {
                size: cluster.members.len(),
                hits: cluster.hits(),
                terms: members(cluster).into_iter().take(options.top_terms).collect(),
            })
            .collect(),
        density: Densities::default(),
        words: Vec::new(),
        images: Vec::new(),
        histogram: None,
    }
}
