/// The NUMA node of the processor that runs this thread, at this moment; `None` if the kernel does
/// not tell.
pub(super) fn current_node() -> Option<u32> {
    // Miri has one processor.
    if cfg!(miri) {
        return None;
    }
    let (mut cpu, mut node) = (0u32, 0u32);
    // SAFETY: the call writes the two local variables; the third argument is unused since Linux
    // 2.6.24.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getcpu,
            &raw mut cpu,
            &raw mut node,
            std::ptr::null_mut::<libc::c_void>(),
        )
    };
    (result == 0).then_some(node)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_one_that_the_system_has() {
        let node = current_node().unwrap();
        let online = std::fs::read_to_string("/sys/devices/system/node/online");
        // Kernels without NUMA have one node, 0, and no such file.
        let online = online.unwrap_or_else(|_| "0".to_owned());
        let known = online.trim().split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().unwrap()..=last.parse::<u32>().unwrap()).contains(&node)
        });
        assert!(known, "{node} is not in {online}");
    }
}
