//! Whatever stands in a session's record: it is read or set aside, and a session that comes of it can be shown and go on.
#![no_main]

use std::{fs, path::Path, sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use rcbot::remote_control::{Beginning, ProjectName, RemoteControl, Request, Settings, offline};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The folder of records, with that of one project.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("website")).unwrap();
    folder
});

/// Nothing runs on it: a task would act on processes that a record names.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().unwrap());

fuzz_target!(|record: &[u8]| {
    let path = FOLDER.path().join("website/session.json");
    fs::write(&path, record).unwrap();
    let known = offline::status(FOLDER.path()).unwrap();
    match &known[..] {
        [offline::Known::Record { .. }] => go_on(FOLDER.path()),
        [offline::Known::Unreadable { .. }] => {}
        other => panic!("{other:?}"),
    }
});

fn go_on(folder: &Path) {
    let _guard = RUNTIME.enter();
    let settings = Settings {
        folder: folder.to_owned(),
        host: "host".to_owned(),
        projects: Vec::new(),
        max_sessions: None,
    };
    let (mut control, _happened, _notices) = RemoteControl::restore(settings).unwrap();
    let website: ProjectName = "website".parse().unwrap();
    let request = || Request {
        requester: "@alice:example.org".to_owned(),
        reference: String::new(),
    };
    assert_eq!(control.status().len(), 1);
    drop(control.start(&website, Beginning::Fresh, request()));
    drop(control.extend(&website, Duration::from_hours(24 * 30), request()));
    drop(control.stop(&website, request()));
    // What was written meanwhile is a record too.
    let known = offline::status(folder).unwrap();
    assert!(!matches!(known[..], [offline::Known::Unreadable { .. }]));
}
