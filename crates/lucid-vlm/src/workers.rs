//! Independent items over threads, each item computed by one thread alone.

use rayon::ThreadPoolBuilder;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Threads to use for `asked`; 0 means one a core.
pub(crate) fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// `f(0), …, f(n − 1)` in order, computed on up to `threads` threads. Matrix products inside `f` stay on the item's thread, so an
/// item's bits do not depend on the number of threads. Of several errors the one with the lowest index is returned; `stop` is
/// asked before every item, and `None` is returned once it says so.
pub(crate) fn each<T: Send, E: Send>(
    threads: usize,
    n: usize,
    stop: &(dyn Fn() -> bool + Sync),
    f: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Option<Vec<T>>, E> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let stopped = AtomicBool::new(false);
    let results: Mutex<Vec<(usize, Result<T, E>)>> = Mutex::new(Vec::with_capacity(n));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            if stop() {
                stopped.store(true, Ordering::Relaxed);
                break;
            }
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            let result = f(i);
            // An item handed out earlier than the failing one is finished all the same, so the lowest index wins.
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(|e| e.into_inner()).push((i, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, n.max(1)) {
            // candle multiplies on rayon's current pool: a pool of one keeps a product on this thread.
            match ThreadPoolBuilder::new().num_threads(1).build() {
                Ok(pool) => drop(scope.spawn(move || pool.install(work))),
                Err(_) => work(),
            }
        }
    });
    if stopped.into_inner() {
        return Ok(None);
    }
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, r)| r).collect::<Result<Vec<T>, E>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_the_first_error_wins() {
        for threads in [1, 3] {
            let all = each(threads, 50, &|| false, |i| Ok::<_, ()>(i * i)).unwrap().unwrap();
            assert_eq!(all, (0..50).map(|i| i * i).collect::<Vec<_>>());
            let error = each(threads, 50, &|| false, |i| if i % 10 == 7 { Err(i) } else { Ok(i) });
            assert_eq!(error.unwrap_err(), 7);
            assert!(each(threads, 50, &|| true, Ok::<usize, ()>).unwrap().is_none());
        }
    }
}
