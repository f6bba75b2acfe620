//! What the guests are made of, from Debian's packages: QEMU with its libraries, a kernel with its
//! modules, and what Debian's kernels lack, built out of their own sources: Linux's DMA test, and
//! iommufd with a VFIO that knows it.
//!
//! All of it lies in one folder of the cache, made once. The cache is outside the build
//! (`IOAT_CACHE`, else `ioat` in the user's cache folder), because it does not depend on the sources
//! and takes a minute and 300 MB of packages: a clean build, or a second clone, finds it there. A
//! folder is made under another name and renamed when it is complete, so what has its name is
//! whole. The name has a digest of the recipe in it: a changed recipe is a new folder, and the old
//! one is removed.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use super::mirror;
use crate::{Failed, packages};

/// The packages. QEMU is from backports: 10.1 is the first with vfio-user, and trixie has 10.0.
const PACKAGES: [&str; 18] = [
    "base-files",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "findutils",
    "gcc",
    "grep",
    "kmod",
    "linux-headers-amd64",
    "linux-image-amd64",
    "linux-source",
    "make",
    "mawk",
    "qemu-system-x86",
    "sed",
    "tar",
    "xz-utils",
];

/// Where packages come from: all but QEMU from the stable release.
const PREFERENCES: &str = "\
Package: qemu-* seabios ipxe-qemu
Pin: release n=trixie-backports
Pin-Priority: 900
";

/// Has `apt` know the preferences.
const SETUP: &str = r#"--setup-hook=mkdir -p "$1/etc/apt/preferences.d" &&
    printf %s "$PREFERENCES" > "$1/etc/apt/preferences.d/qemu""#;

/// Builds modules in the root: `dmatest.ko` and, below `iommufd`, what a kernel with `CONFIG_IOMMUFD`
/// has. Debian's has not, but its core exports all that iommufd takes, except for a piece of the
/// interval tree, which becomes a part of the module, without the symbols that the kernel has already.
/// The packages were unpacked, not installed: what their scripts would have done, as far as it is
/// needed, are the first lines. At the end what only the build needed is removed.
const BUILD: &str = r#"
set -eu
ln -sf mawk /usr/bin/awk
kernel=$(ls /usr/lib/modules)
depmod "$kernel"
mkdir -p /build
tar --extract --file /usr/src/linux-source-*.tar.xz --directory /build --strip-components=1 \
    --wildcards '*/drivers/dma/dmatest.c' '*/drivers/iommu/iommufd/*' '*/drivers/iommu/iommu-priv.h' \
    '*/drivers/vfio/*' '*/lib/interval_tree.c'
cd /build
echo 'obj-m := dmatest.o' > drivers/dma/Makefile
sed '/^EXPORT_SYMBOL/d' lib/interval_tree.c > drivers/iommu/iommufd/interval_tree.c
echo 'iommufd-y += interval_tree.o' >> drivers/iommu/iommufd/Makefile
echo 'obj-y += drivers/dma/ drivers/iommu/iommufd/ drivers/vfio/' > Kbuild
options='IOMMUFD=m VFIO_DEVICE_CDEV=y VFIO_IOMMU_TYPE1= VFIO_MDEV= VFIO_PLATFORM_BASE= VFIO_FSL_MC=
    VFIO_CDX= MLX5_VFIO_PCI= HISI_ACC_VFIO_PCI= PDS_VFIO_PCI= VIRTIO_VFIO_PCI= NVGRACE_GPU_VFIO_PCI=
    QAT_VFIO_PCI='
make --silent -C "/usr/src/linux-headers-$kernel" M=/build modules $(printf 'CONFIG_%s ' $options) \
    KCFLAGS='-DCONFIG_IOMMUFD_MODULE -DCONFIG_VFIO_DEVICE_CDEV -DCONFIG_INTERVAL_TREE_SPAN_ITER' \
    > log 2>&1 || { cat log; exit 1; }
mkdir -p /boot/iommufd
modules=$(find . -name '*.ko')
strip --strip-debug $modules
mv $modules /boot/iommufd/
mv /boot/iommufd/dmatest.ko /boot/
cd /
rm -rf /build /usr/src /usr/lib/gcc /usr/libexec/gcc /usr/include
"#;

/// The cached folder.
pub(super) struct Cache {
    /// A Debian system, in which QEMU can be run.
    pub(super) root: PathBuf,
}

impl Cache {
    /// Finds the folder, or makes it.
    pub(super) fn open() -> Result<Self, Failed> {
        let cache = folder()?;
        let name = format!("vm-{:016x}", digest());
        let root = cache.join(&name);
        fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
        // One at a time: two would do the same work twice.
        let lock = cache.join("lock");
        let lock = fs::File::create(&lock).map_err(|error| format!("{}: {error}", lock.display()));
        let lock = lock?;
        lock.lock().map_err(|error| format!("{}: {error}", cache.display()))?;
        if !root.exists() {
            remove_others(&cache)?;
            let partial = cache.join(format!("{name}.partial"));
            make(&partial)?;
            fs::rename(&partial, &root).map_err(|error| format!("{}: {error}", root.display()))?;
        }
        Ok(Self { root })
    }

    /// A command to be run in the root.
    pub(super) fn command(&self, program: &str) -> Command {
        chroot(&self.root, program)
    }

    /// The only file or folder whose name begins with `prefix` in a folder of the root.
    pub(super) fn only(&self, folder: &str, prefix: &str) -> Result<PathBuf, Failed> {
        let folder = self.root.join(folder);
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
        let mut found = names.filter(|name| name.to_string_lossy().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(name), None) => Ok(folder.join(name)),
            _ => Err(format!("{}: not one `{prefix}…`: remove the cache", folder.display())),
        }
    }
}

/// `program`, in the root.
fn chroot(root: &Path, program: &str) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).arg(program);
    // Of this machine's environment nothing makes sense there.
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command
}

/// The cache's own folder.
fn folder() -> Result<PathBuf, Failed> {
    if let Some(folder) = env::var_os("IOAT_CACHE").filter(|folder| !folder.is_empty()) {
        return std::path::absolute(folder).map_err(|error| format!("IOAT_CACHE: {error}"));
    }
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let user = user.ok_or("no home folder for the cache: set IOAT_CACHE to a folder")?;
    Ok(user.join("ioat"))
}

/// A number that changes with the recipe.
fn digest() -> u64 {
    let mut hasher = DefaultHasher::new();
    (PACKAGES, PREFERENCES, SETUP, BUILD).hash(&mut hasher);
    hasher.finish()
}

/// Removes folders of other recipes, and what is left of one that was not finished.
fn remove_others(cache: &Path) -> Result<(), Failed> {
    let failed = |error| format!("{}: {error}", cache.display());
    for entry in fs::read_dir(cache).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with("vm-") {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Makes the root.
fn make(root: &Path) -> Result<(), Failed> {
    let started = Instant::now();
    packages::ensure("mmdebstrap", "mmdebstrap")?;
    let mirror = mirror::find()?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--variant=extract", "--format=directory"]);
    command.env("PREFERENCES", PREFERENCES).arg(SETUP);
    for unread in ["doc", "man", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{unread}/*"));
    }
    command.arg(format!("--include={}", PACKAGES.join(","))).arg("").arg(root).arg("-");
    let sources = format!("deb {mirror} trixie main\ndeb {mirror} trixie-backports main\n");
    run(&mut command, &sources)?;
    run(chroot(root, "/bin/sh").arg("-s"), BUILD)?;
    println!("xtask: the guests' packages are in the cache after {:.0?}", started.elapsed());
    Ok(())
}

/// Runs a command with this as its input.
fn run(command: &mut Command, input: &str) -> Result<(), Failed> {
    let shown = format!("{command:?}");
    println!("xtask: {shown}");
    let failed = |error| format!("{shown}: {error}");
    let mut child = command.stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends early does not read it; its exit status tells.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}
