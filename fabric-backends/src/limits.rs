//! Memory limits that the system imposes on this process, and the memory left within them.

use std::path::{Path, PathBuf};

/// Returns the bytes left until the nearest memory limit: that of a control group (systemd, container, batch
/// system) or of the process itself (`ulimit -v` and `-d`). `None` without a limit, and on systems other than
/// Linux.
///
/// Swap that a group may use counts, up to `free_swap`: swapping is better than refusing to run.
pub(crate) fn room(free_swap: u64) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let groups = read("/proc/self/cgroup");
    let of_groups = groups.and_then(|groups| room_in_groups(&groups, Path::new("/sys/fs/cgroup"), free_swap));
    let of_process = read("/proc/self/limits").zip(read("/proc/self/status"));
    let of_process = of_process.and_then(|(limits, status)| room_of_process(&limits, &status));
    of_groups.into_iter().chain(of_process).min()
}

/// File names of a control group's memory controller, which differ between cgroup v1 and v2.
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// Fields of `memory.stat` that count as used although the system drops them when it needs memory. The page
    /// cache is reclaimed even where files were read twice and are therefore "active".
    reclaimable: [&'static str; 2],
    swap_limit: &'static str,
    swap_usage: &'static str,
    /// Whether the swap files count memory and swap together.
    together: bool,
}

const SECOND: Names = Names {
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: ["inactive_file", "active_file"],
    swap_limit: "memory.swap.max",
    swap_usage: "memory.swap.current",
    together: false,
};

const FIRST: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: ["total_inactive_file", "total_active_file"],
    swap_limit: "memory.memsw.limit_in_bytes",
    swap_usage: "memory.memsw.usage_in_bytes",
    together: true,
};

/// Returns the memory left in the control groups of this process, listed in `groups` (`/proc/self/cgroup`), and
/// in all their ancestors, since each may have a limit. `mount` is the mount point of the cgroup file system.
fn room_in_groups(groups: &str, mount: &Path, free_swap: u64) -> Option<u64> {
    let mut nearest = None;
    for line in groups.lines() {
        // `number:controllers:path`; cgroup v2 names no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (names, base) = match controllers {
            "" => (&SECOND, mount.to_owned()),
            _ if controllers.split(',').any(|one| one == "memory") => (&FIRST, mount.join("memory")),
            _ => continue,
        };
        // A container may see its own group at the mount point while its path is the one on the host, which
        // does not exist here. All ancestors up to the mount point are checked even so.
        let inner: PathBuf = path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
        for group in inner.ancestors() {
            let room = room_in_group(&base.join(group), names, free_swap);
            nearest = nearest.into_iter().chain(room).min();
        }
    }
    nearest
}

fn room_in_group(folder: &Path, names: &Names, free_swap: u64) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number(names.limit)?;
    let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let reclaimable: u64 = names.reclaimable.iter().filter_map(|name| field(&stat, name)).sum();
    let memory = limit.saturating_sub(number(names.usage)?.saturating_sub(reclaimable));
    let swap = number(names.swap_limit).map(|limit| limit.saturating_sub(number(names.swap_usage).unwrap_or(0)));
    Some(match swap {
        Some(both) if names.together => memory.saturating_add(free_swap).min(both.saturating_add(reclaimable)),
        Some(swap) => memory.saturating_add(free_swap.min(swap)),
        None => memory.saturating_add(free_swap),
    })
}

/// Returns the memory left within the process limits on address space and data. The texts are those of
/// `/proc/self/limits` and `/proc/self/status`.
fn room_of_process(limits: &str, status: &str) -> Option<u64> {
    let room = |limit: &str, used: &str| {
        let soft = limits.lines().find_map(|line| line.strip_prefix(limit))?.split_whitespace().next()?;
        let used = field(status, used)?.saturating_mul(1024);
        Some(soft.parse::<u64>().ok()?.saturating_sub(used))
    };
    let space = room("Max address space", "VmSize:");
    space.into_iter().chain(room("Max data size", "VmData:")).min()
}

/// Returns the number that follows a name, in a text with one name per line.
fn field(text: &str, name: &str) -> Option<u64> {
    let words = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    };
    text.lines().find_map(words)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes the files of a control group.
    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).expect("a folder");
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), format!("{text}\n")).expect("a file"));
    }

    #[test]
    fn the_nearest_of_all_groups_around_a_process_counts() {
        let mount = tempfile::tempdir().expect("a folder");
        let room = |swap| room_in_groups("0::/outer/inner\n", mount.path(), swap);
        assert_eq!(room(0), None);
        group(&mount.path().join("outer/inner"), &[("memory.max", "max"), ("memory.current", "700")]);
        assert_eq!(room(0), None, "no limit");
        group(&mount.path().join("outer"), &[("memory.max", "1000"), ("memory.current", "900")]);
        assert_eq!(room(0), Some(100));
        // Reclaimable page cache counts as free.
        group(&mount.path().join("outer"), &[("memory.stat", "anon 500\ninactive_file 300\nactive_file 100")]);
        assert_eq!((room(0), room(50)), (Some(500), Some(550)));
        group(&mount.path().join("outer"), &[("memory.swap.max", "30"), ("memory.swap.current", "10")]);
        assert_eq!(room(50), Some(520), "a group may swap less than there is");
        group(&mount.path().join("outer/inner"), &[("memory.max", "750")]);
        assert_eq!(room(0), Some(50));
        // A container whose own group is at the mount point.
        group(mount.path(), &[("memory.max", "20"), ("memory.current", "5")]);
        assert_eq!(room_in_groups("0::/../elsewhere\n", mount.path(), 0), Some(15));
    }

    #[test]
    fn groups_of_the_first_version_count_too() {
        let mount = tempfile::tempdir().expect("a folder");
        let own = mount.path().join("memory/job");
        let used = [
            ("memory.usage_in_bytes", "600"),
            ("memory.stat", "inactive_file 7\ntotal_inactive_file 150\ntotal_active_file 50"),
        ];
        group(&own, &used);
        let groups = "4:cpu,memory:/job\n1:cpu:/other\n0::/\n";
        let room = |swap| room_in_groups(groups, mount.path(), swap);
        assert_eq!(room(0), None);
        group(&own, &[("memory.limit_in_bytes", "1000")]);
        assert_eq!((room(0), room(50)), (Some(600), Some(650)));
        group(&own, &[("memory.memsw.limit_in_bytes", "1010"), ("memory.memsw.usage_in_bytes", "600")]);
        assert_eq!(room(50), Some(610));
    }

    #[test]
    fn the_limits_of_a_process_count() {
        let limits = |space: &str, data: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max data size             {data}            unlimited            bytes     \n\
                 Max address space         {space}            unlimited            bytes     \n"
            )
        };
        let status = "Name:\tfabric\nVmPeak:\t    9000 kB\nVmSize:\t    1000 kB\nVmData:\t     500 kB\n";
        let room = |space, data| room_of_process(&limits(space, data), status);
        assert_eq!(room("unlimited", "unlimited"), None);
        assert_eq!(room("2048000", "unlimited"), Some(1_024_000));
        assert_eq!(room("2048000", "612000"), Some(100_000));
        assert_eq!(room("1000", "unlimited"), Some(0), "already beyond it");
    }
}
