//! Programs with mounts of their own, such as a small disk or one that is read only.

use std::{process::Command, sync::LazyLock};

/// What runs a program with mounts of its own: root needs no other rights, and everybody else the user namespaces of the kernel.
const WAYS: [&[&str]; 2] = [
    &["unshare", "--mount"],
    &["unshare", "--user", "--map-root-user", "--mount"],
];

/// The words before a program that give it mounts of its own. Panics where neither way is permitted: then nobody knows what the
/// test would find.
#[track_caller]
pub(crate) fn with_mounts_of_its_own() -> &'static [&'static str] {
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

/// Some systems give a user namespace to everybody and no rights in it, so it is tried with a mount, which nobody else sees.
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
