//! `rcbot check` and the homeserver's copy of the registration: for each fault the failed line, and that its remedy, followed
//! to the letter, fixes it.

use std::{fs, path::PathBuf};

use crate::support::{
    checkup::{Checkup, binary, commands},
    homeserver::{Homeserver, SERVER_NAME},
    host::Host,
    prelude::*,
    start_homeserver,
};

/// A host with its own homeserver.
struct Site {
    host: Host,
    homeserver: Homeserver,
}

impl Site {
    fn new() -> Self {
        let host = Host::new();
        let homeserver = start_homeserver(&host.path("homeserver")).unwrap();
        fs::remove_file(host.path("registration.yaml")).unwrap();
        Self { host, homeserver }
    }

    /// Configures the server's name and the bot's localpart.
    fn name(&self, server: &str, localpart: &str) {
        self.host.configure(|config| {
            config["homeserver"] = json!({ "url": self.homeserver.url(), "server_name": server });
            config["bot"] = json!({ "localpart": localpart });
        });
    }

    fn check(&self) -> Checkup {
        self.host.check()
    }

    fn registration(&self) -> PathBuf {
        self.host.path("registration.yaml")
    }

    /// Runs this command from another folder than the bot's.
    fn rcbot(&self, command: &str) {
        let elsewhere = std::env::temp_dir();
        self.host.checker.shell(&binary(command), &elsewhere);
    }

    fn write_registration(&self) {
        let config = self.host.path("config.yaml");
        self.rcbot(&format!("rcbot registration --config {}", config.display()));
    }

    /// Gives the homeserver a copy, and restarts it.
    fn hand_over(&mut self) {
        let copy = self.homeserver.registrations()[0].clone();
        fs::copy(self.registration(), copy).unwrap();
        self.homeserver.start_again().unwrap();
    }

    /// Follows a remedy that begins or ends with another registration.
    fn replace_registration(&mut self, remedy: &str) {
        let all = format!(
            "remove {}, `rcbot registration --config {}`, give the homeserver the new copy, and restart it",
            self.registration().display(),
            self.host.path("config.yaml").display()
        );
        remedy.says(&all);
        fs::remove_file(self.registration()).unwrap();
        let mut commands = commands(remedy).into_iter();
        let command = commands.find(|command| command.starts_with("rcbot registration"));
        self.rcbot(command.unwrap());
        self.hand_over();
    }
}

#[test]
fn a_wrong_registration_is_reported_and_a_good_one_is_not_replaced_for_a_wrong_name() {
    let mut site = Site::new();
    site.name(SERVER_NAME, "remote");
    site.write_registration();
    let unknown = "does not know the appservice's token";
    let remedy = site.check().failed("account", unknown);
    remedy.begins("name a copy of /");
    remedy.ends(", and restart Synapse");
    site.hand_over();
    site.check().passed("account", "");
    let good = fs::read_to_string(site.registration()).unwrap();

    // A wrong name in the configuration.
    let misnamed = "calls itself rcbot.test";
    site.name("example.net", "remote");
    let checkup = site.check();
    let remedy = checkup.failed("registration", "@remote:example.net");
    remedy.begins("correct `bot.localpart` or `homeserver.server_name` in config.yaml, if one");
    checkup.passed("homeserver", "");
    let remedy = checkup.failed("server_name", misnamed);
    remedy.is("set `homeserver.server_name: rcbot.test` in config.yaml, and restart the bot");
    checkup.skipped("account", "\"server name\" comes first");
    site.name(SERVER_NAME, "remote");
    site.check().passed("account", "");

    site.name(SERVER_NAME, "rmote");
    let checkup = site.check();
    checkup.passed("server_name", "");
    let remedy = checkup.failed("registration", "@rmote:rcbot.test");
    site.name(SERVER_NAME, "remote");
    site.check().passed("account", "");
    assert_eq!(fs::read_to_string(site.registration()).unwrap(), good);

    // The same remedy, where that name is the intended one.
    site.name(SERVER_NAME, "rmote");
    site.replace_registration(&remedy);
    site.check().passed("account", "@rmote:rcbot.test");

    // A new name for the bot, not yet known to the homeserver.
    site.name(SERVER_NAME, "remote-2");
    let (from, to) = ("'@rmote:", "'@remote-2:");
    site.host.replace("registration.yaml", from, to);
    let unknown = "does not let the appservice act as @remote-2:rcbot.test";
    let remedy = site.check().failed("account", unknown);
    remedy.begins("give the homeserver a new copy of /");
    site.hand_over();
    site.check().passed("account", "");

    // A wrong name in the configuration and in the registration that was written for it.
    fs::remove_file(site.registration()).unwrap();
    site.name("example.org", "remote-2");
    site.write_registration();
    site.hand_over();
    let remedy = site.check().failed("server_name", misnamed);
    assert_eq!(commands(&remedy)[0], "homeserver.server_name: rcbot.test");
    site.name(SERVER_NAME, "remote-2");
    site.replace_registration(&remedy);
    let checkup = site.check();
    for name in ["registration", "server_name", "account"] {
        checkup.passed(name, "");
    }
}
