//! A host for `rcbot check`, with all that a session needs.

use std::{
    fs::{self, Permissions},
    ops::Deref,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use serde_json::{Value, json};

use super::{
    checkup::{Checker, Checkup, commands},
    mounts::in_mount_namespace,
    program::{Ended as _, Folder},
};

/// A fake `claude` with a version, which stores logins and trust in the same files as the real one.
pub(crate) const CLAUDE: &str = r#"#!/bin/sh
case "$*" in
--version) echo "2.1.250 (Claude Code)" ;;
"auth login") mkdir -p "$HOME/.claude"
    [ -e "$HOME/.claude.json" ] || echo '{"numStartups":1}' > "$HOME/.claude.json"
    grep -q oauthAccount "$HOME/.claude.json" ||
        sed -i 's/^{/{"oauthAccount":{"emailAddress":"alice@example.org"},/' "$HOME/.claude.json"
    echo '{"claudeAiOauth":{"accessToken":"a","refreshToken":"r","expiresAt":1,"scopes":["user:inference","user:profile"]}}' \
        > "$HOME/.claude/.credentials.json" ;;
"") echo "{\"remoteDialogSeen\":true,\"oauthAccount\":{\"emailAddress\":\"alice@example.org\"},\
\"projects\":{\"$(pwd -P)\":{\"hasTrustDialogAccepted\":true}}}" > "$HOME/.claude.json" ;;
*) exit 1 ;;
esac
"#;

/// A host on which only the homeserver is missing.
pub(crate) struct Host {
    folder: Folder,
    pub(crate) checker: Checker,
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        for name in ["home", "website", "bin"] {
            fs::create_dir(folder.path(name)).unwrap();
        }
        folder.write("bin/claude", CLAUDE);
        set_mode(&folder.path("bin/claude"), 0o755);
        let search = format!("{}:/usr/bin:/bin", folder.path("bin").display());
        let checker = Checker::new(&folder.path("config.yaml"))
            .environment("HOME", folder.path("home"))
            .environment("PATH", search);
        let host = Self { folder, checker };
        host.configure(|_| {});
        set_mode(&host.path("config.yaml"), 0o600);
        host.rcbot(&["registration"]).succeeded();
        host.shell("claude auth login && claude");
        host
    }

    /// Writes config.yaml again.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Value)) {
        let mut config = json!({
            "homeserver": { "url": "http://127.0.0.1:9", "server_name": "example.org" },
            "admin_room": "#admins:example.org",
            "projects": { "website": { "directory": "website" } },
        });
        change(&mut config);
        self.write("config.yaml", &serde_yaml::to_string(&config).unwrap());
    }

    /// Writes config.yaml again, with one key of the project.
    pub(crate) fn configure_project(&self, key: &str, value: Value) {
        self.configure(|config| config["projects"]["website"][key] = value);
    }

    /// Runs a command in the project's directory.
    #[track_caller]
    pub(crate) fn shell(&self, command: &str) {
        self.checker.shell(command, &self.path("website"));
    }

    #[track_caller]
    pub(crate) fn check(&self) -> Checkup {
        self.checker.run()
    }

    /// Asserts the fault, and that the commands in its remedy fix it.
    #[track_caller]
    pub(crate) fn assert_remedy_fixes(&self, name: &str, outcome: &str, part: &str) {
        let remedy = self.check().assert_outcome(name, outcome, part);
        for command in commands(&remedy) {
            self.shell(command);
        }
        self.check().passed(name, "");
    }
}

impl Deref for Host {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

/// The check, run by a shell script that may mount file systems.
pub(crate) fn with_mounts(host: &Host, script: &str) -> Checker {
    let shell = ["sh", "-c", script, "sh"];
    let words = [in_mount_namespace(), &shell].concat();
    host.checker.clone().wrapped(&words)
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
