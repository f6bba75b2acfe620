//! Fetching a cache line before it is written.

/// Asks for the cache line at `line` to be brought here for writing (`PREFETCHW`), and does not wait.
///
/// `_mm_prefetch` cannot say "for writing" on a baseline x86-64: the compiler makes a read of it, and
/// the line would come shared. Processors without the instruction take it for a no-op in 64-bit mode
/// (Intel SDM, `PREFETCHW`). Other architectures do without.
#[inline]
pub(super) fn prefetch_for_write<T>(line: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which reads and writes nothing, changes no flag and faults on no address.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = line;
}
