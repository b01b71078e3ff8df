//! The images of largest value for one latent or concept.

/// One image with where and how strongly it shows something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TopImage {
    pub value: f64,
    pub pair: usize,
    pub patch: u32,
    pub latent: u32,
}

/// The images of largest value, ties to the lower pair, at most `limit`.
#[derive(Debug, Clone)]
pub(crate) struct TopImages {
    limit: usize,
    largest: f64,
    entries: Vec<TopImage>,
}

impl TopImages {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, largest: 0.0, entries: Vec::new() }
    }

    pub(crate) fn offer(&mut self, value: f64, pair: usize, patch: u32, latent: u32) {
        self.largest = self.largest.max(value);
        let before = |entry: &TopImage| entry.value > value || (entry.value == value && entry.pair < pair);
        let at = self.entries.partition_point(before);
        if at < self.limit {
            self.entries.insert(at, TopImage { value, pair, patch, latent });
            self.entries.truncate(self.limit);
        }
    }

    pub(crate) fn entries(&self) -> &[TopImage] {
        &self.entries
    }

    /// The largest value offered, 0 without any.
    pub(crate) fn largest(&self) -> f64 {
        self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_largest_in_any_order() {
        let values = [(0.5, 4), (2.0, 1), (0.5, 0), (1.0, 7), (2.0, 3), (0.5, 2)];
        let of = |order: &[usize]| {
            let mut top = TopImages::new(4);
            order.iter().for_each(|&i| top.offer(values[i].0, values[i].1, 0, 0));
            top.entries().iter().map(|e| e.pair).collect::<Vec<_>>()
        };
        assert_eq!(of(&[0, 1, 2, 3, 4, 5]), [1, 3, 7, 0]);
        assert_eq!(of(&[5, 4, 3, 2, 1, 0]), [1, 3, 7, 0]);
        let mut none = TopImages::new(0);
        none.offer(3.0, 1, 0, 0);
        assert!(none.entries().is_empty());
        assert_eq!(none.largest(), 3.0);
    }
}
