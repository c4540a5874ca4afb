/// Returns whether the current thread is a worker of the thread pool on which CPU devices compute.
///
/// While such a thread waits for a computation, it may start another task of the pool. It must therefore never wait for
/// something that only another task, or its own interrupted work, can finish.
pub fn is_worker_thread() -> bool {
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    return rayon::current_thread_index().is_some();
    #[cfg(not(any(feature = "flex", feature = "ndarray")))]
    return false;
}
