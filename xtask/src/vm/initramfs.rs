//! The guest's file system: this program as its first process, `ioat`, busybox and kernel modules.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{cache::Cache, cpio::Archive, guest::IOMMUFD_MODULES};
use crate::Failed;

/// Modules that the guest loads, besides those that they need.
const MODULES: [&str; 5] = ["ioatdma", "vfio-pci", "vfio_iommu_type1", "tun", "veth"];

/// Makes the archive.
pub(super) fn build(cache: &Cache, ioat: &Path) -> Result<Vec<u8>, Failed> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp", "run", "etc"] {
        archive.folder(folder);
    }
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let busybox = cache.root.join("usr/bin/busybox");
    let mut files = BTreeMap::from([
        (PathBuf::from("/bin/xtask"), program.clone()),
        (PathBuf::from("/bin/ioat"), ioat.to_owned()),
        (PathBuf::from("/bin/busybox"), busybox),
    ]);
    for dynamic in [&program, ioat] {
        files.extend(libraries(dynamic)?.into_iter().map(|path| (path.clone(), path)));
    }
    for (path, source) in &files {
        let added = archive.program(&path.to_string_lossy(), source);
        added.map_err(|error| failed(source, error))?;
    }
    add_modules(&mut archive, cache)?;
    let iommufd = IOMMUFD_MODULES.map(|module| format!("iommufd/{module}.ko"));
    for module in iommufd.iter().map(String::as_str).chain(["dmatest.ko"]) {
        let path = cache.root.join("boot").join(module);
        let content = fs::read(&path).map_err(|error| failed(&path, error))?;
        archive.file(&format!("/lib/{module}"), &content);
    }
    Ok(archive.finish())
}

/// The shared libraries that a program of this machine needs, and its loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Failed> {
    let output = Command::new("ldd").arg(program).output();
    let output = output.map_err(|error| format!("ldd: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("not found") {
        return Err(format!("ldd {}: {text}", program.display()));
    }
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

/// Adds the modules as `modprobe` wants them: where the kernel looks for them, and not compressed.
fn add_modules(archive: &mut Archive, cache: &Cache) -> Result<(), Failed> {
    let folder = cache.only("usr/lib/modules", "")?;
    let list = folder.join("modules.dep");
    let list = fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let wanted = closure(&list, &MODULES)?;
    let release = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut dependencies = String::new();
    for (module, needs) in wanted {
        let needs: Vec<&str> = needs.iter().map(|path| plain(path)).collect();
        dependencies.push_str(&format!("{}: {}\n", plain(&module), needs.join(" ")));
        let content = cache
            .command("xz")
            .args(["--decompress", "--stdout"])
            .arg(Path::new("/usr/lib/modules").join(&release).join(&module))
            .output();
        match content {
            Ok(output) if output.status.success() => {
                archive.file(&format!("/lib/modules/{release}/{}", plain(&module)), &output.stdout);
            }
            outcome => return Err(format!("{module}: {outcome:?}")),
        }
    }
    archive.file(&format!("/lib/modules/{release}/modules.dep"), dependencies.as_bytes());
    Ok(())
}

/// A module's path without the suffix that says that it is compressed.
fn plain(path: &str) -> &str {
    path.trim_end_matches(".xz")
}

/// The lines of `modules.dep` for these modules and all that they need: path, and paths needed.
fn closure(list: &str, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>, Failed> {
    let lines = list.lines().filter_map(|line| line.split_once(':'));
    let all: BTreeMap<&str, Vec<String>> = lines
        .map(|(path, needs)| (path, needs.split_whitespace().map(str::to_owned).collect()))
        .collect();
    let mut wanted: Vec<String> = Vec::new();
    for name in names {
        let found = all.keys().find(|path| {
            let file = plain(path).rsplit('/').next().unwrap_or_default();
            file.strip_suffix(".ko") == Some(name)
        });
        wanted.push((*found.ok_or_else(|| format!("the kernel has no module {name}"))?).to_owned());
    }
    let mut closed = BTreeMap::new();
    while let Some(path) = wanted.pop() {
        let needs = all.get(path.as_str()).cloned().unwrap_or_default();
        wanted.extend(needs.iter().filter(|path| !closed.contains_key(*path)).cloned());
        closed.insert(path, needs);
    }
    Ok(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_what_they_need() {
        let list = "a/one.ko.xz: b/two.ko.xz\nb/two.ko.xz: c/three.ko.xz\nc/three.ko.xz:\n\
                    d/bone.ko.xz:\n";
        let closed = closure(list, &["one"]).expect("it is there");
        let paths: Vec<&str> = closed.keys().map(String::as_str).collect();
        assert_eq!(paths, ["a/one.ko.xz", "b/two.ko.xz", "c/three.ko.xz"]);
        assert!(closure(list, &["four"]).is_err());
    }
}
