//! `rcbot check` and the registration that the homeserver has: for each fault the failed line, and that its remedy, followed to
//! the letter, mends it.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::support::{
    checkup::{Checker, binary, commands},
    homeserver::{Homeserver, SERVER_NAME},
    prelude::*,
    start_homeserver,
};

/// A homeserver, and a folder with the files of a bot that has not run yet.
struct Site {
    folder: TempDir,
    homeserver: Homeserver,
    config: Value,
    checker: Checker,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::with_prefix("rcbot-test-").unwrap();
        let homeserver = start_homeserver(&folder.path().join("homeserver")).unwrap();
        let config = json!({
            "homeserver": { "url": homeserver.url(), "server_name": SERVER_NAME },
            "bot": { "localpart": "remote" },
            "admin_room": "#admins:rcbot.test",
            "projects": { "website": { "directory": "." } },
        });
        let checker = Checker::new(&folder.path().join("config.yaml"));
        let mut site = Self {
            folder,
            homeserver,
            config,
            checker,
        };
        site.configure(|_| {});
        site
    }

    fn configure(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        let file = self.folder.path().join("config.yaml");
        fs::write(file, self.config.to_string()).unwrap();
    }

    /// With a server name.
    fn name_server(&mut self, name: &str) {
        self.configure(|config| config["homeserver"]["server_name"] = json!(name));
    }

    /// With a localpart of the bot.
    fn name_bot(&mut self, localpart: &str) {
        self.configure(|config| config["bot"]["localpart"] = json!(localpart));
    }

    fn registration(&self) -> PathBuf {
        self.folder.path().join("registration.yaml")
    }

    fn change_registration(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.registration()).unwrap();
        text.says(from);
        fs::write(self.registration(), text.replace(from, to)).unwrap();
    }

    /// Runs the command as it is told, from another folder than the bot's.
    fn rcbot(&self, command: &str) {
        self.checker.shell(&binary(command), &std::env::temp_dir());
    }

    fn write_registration(&self) {
        let config = self.folder.path().join("config.yaml");
        self.rcbot(&format!("rcbot registration --config {}", config.display()));
    }

    /// Gives the homeserver a copy, and restarts it.
    fn hand_over(&mut self) {
        let copy = self.homeserver.registrations()[0].clone();
        fs::copy(self.registration(), copy).unwrap();
        self.homeserver.start_again().unwrap();
    }

    /// Does what a remedy says that begins or ends with another registration.
    fn replace_registration(&mut self, remedy: &str) {
        let all = format!(
            "remove {}, `rcbot registration --config {}`, give the homeserver the new copy, and restart it",
            self.registration().display(),
            self.folder.path().join("config.yaml").display()
        );
        remedy.says(&all);
        fs::remove_file(self.registration()).unwrap();
        let told = commands(remedy);
        let written = told
            .iter()
            .find(|command| command.starts_with("rcbot registration"));
        self.rcbot(written.unwrap());
        self.hand_over();
    }
}

#[test]
fn a_registration_that_does_not_fit_is_told_and_a_good_one_is_not_given_up_for_a_wrong_name() {
    let mut site = Site::new();
    site.write_registration();
    let unknown = "does not know the appservice's token";
    let remedy = site.checker.run().failed("account", unknown);
    remedy.begins("name a copy of /");
    remedy.ends(", and restart Synapse");
    site.hand_over();
    site.checker.run().passed("account", "");
    let good = fs::read_to_string(site.registration()).unwrap();

    // A wrong name in the configuration.
    let misnamed = "calls itself rcbot.test";
    site.name_server("example.net");
    let checkup = site.checker.run();
    let remedy = checkup.failed("registration", "@remote:example.net");
    remedy.begins("correct `bot.localpart` or `homeserver.server_name` in config.yaml, if one");
    checkup.passed("homeserver", "");
    let remedy = checkup.failed("server_name", misnamed);
    remedy.is("set `homeserver.server_name: rcbot.test` in config.yaml, and restart the bot");
    checkup.skipped("account", "\"server name\" comes first");
    site.name_server(SERVER_NAME);
    site.checker.run().passed("account", "");

    site.name_bot("rmote");
    let checkup = site.checker.run();
    checkup.passed("server_name", "");
    let remedy = checkup.failed("registration", "@rmote:rcbot.test");
    site.name_bot("remote");
    site.checker.run().passed("account", "");
    assert_eq!(fs::read_to_string(site.registration()).unwrap(), good);

    // The same remedy, where that is the name to be.
    site.name_bot("rmote");
    site.replace_registration(&remedy);
    site.checker.run().passed("account", "@rmote:rcbot.test");

    // A new name for the bot, here and not yet there.
    site.name_bot("remote-2");
    site.change_registration("'@rmote:", "'@remote-2:");
    let unknown = "does not let the appservice act as @remote-2:rcbot.test";
    let remedy = site.checker.run().failed("account", unknown);
    remedy.begins("give the homeserver a new copy of /");
    site.hand_over();
    site.checker.run().passed("account", "");

    // A wrong name in the configuration and in the registration that was written for it.
    fs::remove_file(site.registration()).unwrap();
    site.name_server("example.org");
    site.write_registration();
    site.hand_over();
    let remedy = site.checker.run().failed("server_name", misnamed);
    assert_eq!(commands(&remedy)[0], "homeserver.server_name: rcbot.test");
    site.name_server(SERVER_NAME);
    site.replace_registration(&remedy);
    let checkup = site.checker.run();
    for name in ["registration", "server_name", "account"] {
        checkup.passed(name, "");
    }
}
