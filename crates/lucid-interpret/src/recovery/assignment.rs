//! One-to-one assignment of largest total score (the Hungarian method with potentials).

/// For every row the column assigned to it, so that the sum of `score(row, column)` is largest; O(rows² · columns).
/// Needs `rows ≤ columns`; every row gets a column.
///
/// # Panics
/// Where there are more rows than columns.
pub fn assign(rows: usize, columns: usize, score: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    assert!(rows <= columns, "{rows} rows need at least as many columns, found {columns}");
    const FREE: usize = usize::MAX;
    // Rows are added one at a time along a shortest augmenting path in reduced costs; column `columns` is the start.
    let mut row_potential = vec![0.0; rows];
    let mut column_potential = vec![0.0; columns + 1];
    let mut row_of = vec![FREE; columns + 1];
    for row in 0..rows {
        row_of[columns] = row;
        let mut current = columns;
        let mut distance = vec![f64::INFINITY; columns];
        let mut came_from = vec![columns; columns];
        let mut visited = vec![false; columns + 1];
        while row_of[current] != FREE {
            visited[current] = true;
            let from = row_of[current];
            let (mut step, mut next) = (f64::INFINITY, columns);
            for column in 0..columns {
                if visited[column] {
                    continue;
                }
                let reduced = -score(from, column) - row_potential[from] - column_potential[column];
                if reduced < distance[column] {
                    distance[column] = reduced;
                    came_from[column] = current;
                }
                if distance[column] < step {
                    step = distance[column];
                    next = column;
                }
            }
            for column in 0..=columns {
                if visited[column] {
                    row_potential[row_of[column]] += step;
                    column_potential[column] -= step;
                } else if column < columns {
                    distance[column] -= step;
                }
            }
            current = next;
        }
        while current != columns {
            row_of[current] = row_of[came_from[current]];
            current = came_from[current];
        }
    }
    let mut column_of = vec![FREE; rows];
    for (column, &row) in row_of[..columns].iter().enumerate() {
        if row != FREE {
            column_of[row] = column;
        }
    }
    column_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Best total over every injective assignment.
    fn brute(scores: &[Vec<f64>], row: usize, used: &mut Vec<bool>) -> f64 {
        if row == scores.len() {
            return 0.0;
        }
        let mut best = f64::MIN;
        for column in 0..used.len() {
            if !used[column] {
                used[column] = true;
                best = best.max(scores[row][column] + brute(scores, row + 1, used));
                used[column] = false;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn is_optimal(rows in 1usize..6, extra in 0usize..3, raw in prop::collection::vec(-20i32..20, 64)) {
            let columns = rows + extra;
            let scores: Vec<Vec<f64>> = (0..rows).map(|r| (0..columns).map(|c| f64::from(raw[r * 8 + c]) / 8.0).collect()).collect();
            let found = assign(rows, columns, |r, c| scores[r][c]);
            let mut distinct = found.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), rows);
            let total: f64 = found.iter().enumerate().map(|(r, &c)| scores[r][c]).sum();
            prop_assert!((total - brute(&scores, 0, &mut vec![false; columns])).abs() < 1e-9);
        }
    }

    #[test]
    fn nothing_to_assign() {
        assert!(assign(0, 3, |_, _| 1.0).is_empty());
    }
}
