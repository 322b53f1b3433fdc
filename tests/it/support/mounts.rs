//! Programs in their own mount namespace, for example with a small or read-only disk.

use std::{process::Command, sync::LazyLock};

/// How to run a program in a new mount namespace: as root, or with the kernel's user namespaces.
const WAYS: [&[&str]; 2] = [
    &["unshare", "--mount"],
    &["unshare", "--user", "--map-root-user", "--mount"],
];

/// The command before a program that gives it its own mounts. Panics where neither way is permitted, as the test would then
/// prove nothing.
#[track_caller]
pub(crate) fn in_mount_namespace() -> &'static [&'static str] {
    static WAY: LazyLock<Option<&[&str]>> = LazyLock::new(|| {
        let permitted = WAYS.iter().find(|way| is_permitted(way));
        permitted.copied()
    });
    WAY.unwrap_or_else(|| {
        panic!(
            "neither `{}` nor `{}` can mount a tmpfs here (root, or user namespaces, are needed)",
            WAYS[0].join(" "),
            WAYS[1].join(" ")
        )
    })
}

/// Some systems allow user namespaces without rights in them, so this tries a mount, invisible outside.
fn is_permitted(way: &[&str]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mount = ["mount", "-t", "tmpfs", "tmpfs"];
    let tried = Command::new(way[0])
        .args(&way[1..])
        .args(mount)
        .arg(folder.path())
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}
