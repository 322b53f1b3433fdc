//! Every mistake in the text, and its message.

use super::*;

/// Asserts that the text has only one problem, at this place.
#[track_caller]
fn assert_one_problem(text: &str, wanted: &str) {
    let said = problems_of(text);
    let is_only_one = said.starts_with("config.yaml has 1 problem\n");
    let is_there = said.contains(&format!("\nconfig.yaml:{wanted}"));
    assert!(is_only_one && is_there, "{wanted:?} is not in:\n{said}");
}

/// Splits the lines of a table of cases.
fn table(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| {
        let (case, wanted) = line.split_once(" | ").expect("a case has two columns");
        (case.trim_end(), wanted)
    })
}

/// Replacements in the minimal configuration, and their messages.
const WRONG_REPLACEMENTS: &str = r##"
http://127.0.0.1:8008 => ftp://example.org   | 2: homeserver.url: found "ftp://example.org", wanted an http or https URL
http://127.0.0.1:8008 => localhost:8008      | 2: homeserver.url: found "localhost:8008", wanted an http or https URL
http://127.0.0.1:8008 => https://            | 2: homeserver.url: found "https://", wanted an http or https URL
http://127.0.0.1:8008 => https://x.y/?a=b    | 2: homeserver.url: found "https://x.y/?a=b", wanted an http or https URL
http://127.0.0.1:8008 => 42                  | 2: homeserver.url: found 42, wanted an http or https URL
http://127.0.0.1:8008 => https://me:wo rd@x.y | 2: homeserver.url: names a user or a password; wanted a URL without
http://127.0.0.1:8008 => https://me:word@x.y | 2: homeserver.url: names a user or a password; wanted a URL without
name: example.org => name: https://x.y       | 3: homeserver.server_name: found "https://x.y", wanted a server name without
name: example.org => name: [x]               | 3: homeserver.server_name: found a list, wanted a server name
"#admins:example.org" => admins              | 4: admin_room: found "admins", wanted a room alias or id
"#admins:example.org" => "#admins"           | 4: admin_room: found "#admins", wanted a room alias or id
"#admins:example.org" => "!abc"              | 4: admin_room: found "!abc", wanted a room alias or id
"#admins:example.org" => "#a b:example.org"  | 4: admin_room: found "#a b:example.org", wanted a room alias or id
"#admins:example.org" => #admins:example.org | 4: admin_room: found nothing, wanted a room alias or id in quotes
"#admins:example.org" => !abc:example.org    | 4: admin_room: a text that begins with ! must be in quotes
website: => web site:                        | 6: projects.web site: a project's name is
website: => ../website:                      | 6: projects.../website: a project's name is
/srv/website =>                              | 7: projects.website.directory: found nothing, wanted a path
/srv/website => ~/website                    | 7: projects.website.directory: found "~/website", wanted a path without ~
"##;

/// Wrong keys below the minimal configuration, and their messages.
const WRONG_ADDITIONS: &str = r#"
command_prefix: ''                  | found "", wanted a word without white space
command_prefix: '! rc'              | found "! rc", wanted a word without white space
command_prefix: '`rc'               | found "`rc", wanted a word without white space or backticks
command_prefix: !rc                 | a text that begins with ! must be in quotes
rate.commands_per_minute: 0         | found 0, wanted a whole number from 1 to 1000
rate.commands_per_minute: none      | found "none", wanted a whole number from 1 to 1000
rate.per_minute: 5                  | unknown key; the keys here are commands_per_minute
max_sessions: 0                     | found 0, wanted a whole number from 1 to 1000, or none
max_sessions: all                   | found "all", wanted a whole number from 1 to 1000, or none
max_sessions: 1.5                   | found 1.5, wanted a whole number
max_command_age: 0s                 | found "0s", wanted a duration longer than nothing
max_command_age: 120                | found 120, wanted a duration such as 30s or 2m
max_command_age: 900y               | found "900y", wanted a duration such as 30s or 2m, of a year at most
data_dir: ''                        | found "", wanted a path
data_dir: [data]                    | found a list, wanted a path
project_roots: /srv                 | found "/srv", wanted a list, such as ["/srv"]
telemetry: off                      | unknown key; the keys here are admin_room, appservice
homeservr: x                        | unknown key; did you mean `homeserver`?
admin_room: '!x:example.org'        | given twice, first in line 4; remove or rename one of them
appservice.registration: ~/r.yaml   | found "~/r.yaml", wanted a path without ~
bot.localpart: RC Bot               | found "RC Bot", wanted a user name of lower-case letters
bot.localpart: '@rcbot:example.org' | found "@rcbot:example.org", wanted a user name
bot.localpart: ''                   | found "", wanted a user name
bot.access_token: [secret_x]        | wanted a secret text, in quotes
bot.access_token: 'secret x'        | is empty or holds more than visible ASCII characters
bot.password: 12345678              | wanted the password, in quotes
bot.password: ''                    | is empty; wanted the account's password
bot.display_name: true              | found true, wanted a text: put it in quotes
bot.display_name: ' '               | found " ", wanted a text of one line
authorization.power_level: high     | found "high", wanted a whole number from -9007199254740991 to 9007199254740991
authorization.power_level: '100'    | found "100", wanted a whole number
authorization.power_level: 49.5     | found 49.5, wanted a whole number
authorization.power_level: 9007199254740992     | found 9007199254740992, wanted a whole number
authorization.power_level: 0o17x    | found "0o17x", wanted a whole number
authorization.power_level: 1_000    | found "1_000", wanted a whole number
authorization.power_level: 99999999999999999999 | a number as large as this must be in quotes
bot.password: 99999999999999999999  | a number as large as this must be in quotes
authorization.users: '@me:example.org' | found "@me:example.org", wanted a list, such as ["@me:example.org"]
authorization.users:                | found nothing, wanted a list in square brackets
authorization.user: []              | unknown key; did you mean `users`?
encryption.devices: all             | found "all", wanted cross_signed or any
encryption.require_encrypted_commands: true | found true, wanted auto or always or never
sessions.link_timeout: soon         | found "soon", wanted a duration such as 30s or 2m
sessions.link_timeout: 0s           | found "0s", wanted a duration longer than nothing
sessions.stop_grace: -1s            | found "-1s", wanted a duration such as 30s or 2m
sessions.link_pattern: 'https://('  | found "https://(", wanted a regular expression
sessions.link_pattern: [x]          | found a list, wanted a text
sessions.stdin: [y]                 | wanted a text, in quotes
sessions.command: claude -x         | found "claude -x", wanted a list of a program and its arguments
sessions.command: []                | the list is empty; wanted a program and its arguments
sessions.command: ['', -x]          | the program's name is empty; wanted a program
sessions.command: [claude, {project}] | an argument is not a text; wanted only texts, in quotes
sessions.permission_modes: plan     | found "plan", wanted a list, such as ["plan"]
sessions.permission_modes: [a, A]   | has `A` twice; remove one
sessions.environment: [A=b]         | found a list, wanted a mapping
sessions.environment: TOKEN=hunter2 | found a text, wanted a mapping
sessions.stdin: 482913              | wanted a text, in quotes
sessions.link_timout: 5s            | unknown key; did you mean `link_timeout`?
sessions.directory: /srv            | is a key of a project; move it below `projects`
sessions.restrat_now: x             | unknown key; the keys here are autostart, command
sessions.max_duration: soon         | found "soon", wanted a duration such as 12h, or none
sessions.max_output: 1KiB           | found "1KiB", wanted a size such as 8MiB
sessions.restart: always            | found "always", wanted never or on_exit
sessions.notify: ended              | found "ended", wanted a list
"#;

#[test]
fn each_wrong_value_is_named_with_its_line_its_key_and_what_is_wanted() {
    for (case, wanted) in table(WRONG_REPLACEMENTS) {
        let (from, to) = case.split_once("=>").unwrap();
        assert_one_problem(&base_with(from.trim(), to.trim()), wanted);
    }
    for (case, wanted) in table(WRONG_ADDITIONS) {
        let key = case.split(':').next().unwrap();
        let (text, line) = match case.split_once('.').filter(|_| key.contains('.')) {
            Some((section, rest)) => (format!("{BASE}{section}:\n  {rest}\n"), 9),
            None => (format!("{BASE}{case}\n"), 8),
        };
        assert_one_problem(&text, &format!("{line}: {key}: {wanted}"));
    }
}

#[test]
fn each_wrong_item_variable_or_project_is_named_with_its_line() {
    for (addition, wanted) in table(
        r#"
sessions:\n  permission_modes: [--x] | 9: sessions.permission_modes[0]: found "--x", wanted a word such as plan
sessions:\n  spawn: [a b] | 9: sessions.spawn[0]: found "a b", wanted a word such as plan
sessions:\n  spawn: [{a: b}] | 9: sessions.spawn[0]: found "b", wanted a whole number
sessions:\n  spawn: [{a: 1, b: 2}] | 9: sessions.spawn[0]: found a mapping, wanted a word such as plan
sessions:\n  command: [x]\n  permission_modes: [plan] | 10: sessions.permission_modes: is of no use, as the command has no `{mode}`
sessions:\n  settings: s.json\n  command: [x] | 9: sessions.settings: does not get to the session, as `command` has no `{settings}`
sessions:\n  command: [sh, -lc, 'x {name}'] | 9: sessions.command[2]: a shell would read `{name}`, which people choose
authorization:\n  users:\n  - me                 | 10: authorization.users[0]: found "me", wanted a user id
authorization:\n  users:\n  - "@a:b"\n  - 5       | 11: authorization.users[1]: found 5, wanted a user id
authorization:\n  users:\n    me:              | 10: authorization.users.me: found "me", wanted a user id
authorization:\n  users:\n    "@a:b": 5        | 10: authorization.users.@a:b: found 5, wanted the master key of @a:b
authorization:\n  users:\n    "@a:b": short    | 10: authorization.users.@a:b: found "short", wanted the master key of @a:b
sessions:\n  environment:\n    A=B: x            | 10: sessions.environment.A: wants a colon and a space right after its name
sessions:\n  environment:\n    KEY: [x]          | 10: sessions.environment.KEY: wanted a text as the variable's value
sessions:\n  environment:\n    KEY:              | 10: sessions.environment.KEY: wanted a text as the variable's value
sessions:\n  environment: { RCBOT_SESSION_ID: x } | 9: sessions.environment.RCBOT_SESSION_ID: is set by rcbot itself
  website: { directory: /srv }                  | 8: projects.website: given twice, first in line 6
  other:                                        | 8: projects.other.directory: missing, wanted a path
  other: [directory]                            | 8: projects.other: found a list, wanted a mapping
  Website: { directory: a }                     | 8: projects.Website: `website` is the same but for upper and lower case
    directory: /srv                             | 8: projects.website.directory: given twice, first in line 7
    stop_grace: 1                               | 8: projects.website.stop_grace: found 1, wanted a duration
    autostart: true                             | 8: projects.website.autostart: needs deliver_to
    deliver_to: ["@a:example.org"]              | 8: projects.website.deliver_to: is of no use without autostart
    power_level: [1]                            | 8: projects.website.power_level: found a list, wanted a whole number
project_roots: ["~/src"]                        | 8: project_roots[0]: found "~/src", wanted a path without ~
project_roots: [5]                              | 8: project_roots[0]: found 5, wanted a path, or a mapping
project_roots: [[/srv]]                         | 8: project_roots[0]: found a list, wanted a path, or a mapping
project_roots: [{ power_level: 1 }]             | 8: project_roots[0].directory: missing, wanted a path
project_roots: [{ directory: a, stop_grac: 1s }] | 8: project_roots[0].stop_grac: unknown key; did you mean `stop_grace`?
project_roots: [{ directory: a, stop_grace: 1 }] | 8: project_roots[0].stop_grace: found 1, wanted a duration
project_roots: [{ directory: a, autostart: true }] | 8: project_roots[0].autostart: is a key of a project, not of a root
    environment: { RCBOT_SESSION_ID: x }        | 8: projects.website.environment.RCBOT_SESSION_ID: is set by
    notify: [ended, end]                        | 8: projects.website.notify[1]: found "end", wanted ended or cut_off or login or rebooted
"#,
    ) {
        assert_one_problem(
            &format!("{BASE}{}\n", addition.replace("\\n", "\n")),
            wanted,
        );
    }
}

#[test]
fn the_bot_logs_in_one_way_and_no_message_shows_the_secret() {
    for (addition, wanted) in table(
        r#"
bot:\n  access_token: hunter2\n  password: hunter3 | 10: bot.password: is given beside bot.access_token
bot:\n  access_token: hunter2\nappservice:         | 10: appservice: is given beside bot.access_token or bot.password
appservice: {}\nbot:\n  password: hunter2          | 8: appservice: is given beside bot.access_token or bot.password
bot:\n  access_token: "hun ter2"                   | 9: bot.access_token: is empty or holds more than visible ASCII
bot:\n  password: !hunter2                         | 9: bot.password: a text that begins with ! must be in quotes
bot: {password:hunter2}                            | 8: bot.password: wants a colon and a space right after its name
bot: {access_token=hunter2}                        | 8: bot.access_token: wants a colon and a space right after its name
password:hunter2:                                  | 8: password: wants a colon and a space right after its name
"#,
    ) {
        let text = format!("{BASE}{}\n", addition.replace("\\n", "\n"));
        assert_one_problem(&text, wanted);
        assert!(!problems_of(&text).contains("hun"));
    }
}

#[test]
fn missing_keys_are_named_with_the_wanted_value() {
    let said = problems_of("homeserver:\n  url: http://localhost\n");
    assert_eq!(
        said,
        "config.yaml has 3 problems\n\
         config.yaml:1: homeserver.server_name: missing, wanted a server name without https://, such as example.org\n\
         config.yaml: admin_room: missing, wanted a room alias or id in quotes, such as \"#admins:example.org\" or \
         \"!abcdef:example.org\"\n\
         config.yaml: projects: none given, wanted at least one: a name, and below it `directory: /path/to/it`"
    );
    let said = problems_of(&base_with("    directory: /srv/website\n", ""));
    assert!(
        said.contains("config.yaml:6: projects.website.directory: missing, wanted a path"),
        "{said}"
    );
    let without_projects = base_with("  website:\n    directory: /srv/website\n", "");
    for roots in ["project_roots: []\n", "project_roots:\n"] {
        let said = problems_of(&format!("{without_projects}{roots}"));
        assert!(said.contains("projects: none given"), "{said}");
    }
    // With a root, no project is required.
    assert!(parse(&format!("{without_projects}project_roots: [/srv]\n")).is_ok());
    let said = problems_of(&without_projects);
    assert!(
        said.contains("config.yaml:5: projects: none given"),
        "{said}"
    );
    for empty in ["", "\n", "# nothing\n", "---\n", "null"] {
        let said = problems_of(empty);
        assert!(
            said.contains("config.yaml: the file is empty"),
            "{empty:?}: {said}"
        );
        assert!(
            said.contains("homeserver.url: missing"),
            "{empty:?}: {said}"
        );
    }
}

/// The identity seen first would be pinned.
#[test]
fn a_user_in_a_mapping_without_a_key_is_refused() {
    for user in [
        "\"@alice:example.org\":",
        "\"@alice:example.org\": null",
        "\"@alice:example.org\": ~",
        "\"@alice:example.org\": #KEY",
        "\"@alice:example.org\": &KEY",
        "? \"@alice:example.org\"",
        "{ \"@alice:example.org\" }",
    ] {
        let text = format!("{BASE}authorization:\n  users:\n    {user}\n");
        assert!(parse(&text).is_err(), "{user}");
    }
}

#[test]
fn invalid_yaml_is_reported_with_line_and_column() {
    let said = problems_of("homeserver:\n  url: [\nadmin_room: x\n");
    assert!(
        said.contains("config.yaml:3: not YAML: ") && said.contains("in column 1"),
        "{said}"
    );
    let said = problems_of("authorization:\n  users: [@me:example.org]\n");
    assert!(
        said.contains("config.yaml:2: not YAML: ") && said.contains("begins with @ in quotes"),
        "{said}"
    );
    let said = problems_of("- a list\n");
    assert!(
        said.contains("config.yaml:1: found a list, wanted a mapping"),
        "{said}"
    );
    assert!(problems_of("a: 1\n---\nb: 2\n").contains("more than one document"));
    // Not a user without a key.
    let anchor = "authorization:\n  users:\n    \"@alice:example.org\": &KEY\n";
    assert!(problems_of(&format!("{BASE}{anchor}")).contains("begins with & must be in quotes"));
}

/// YAML other than keys and values, at line 9 below the minimal configuration, and its messages.
const BESIDE_VALUES: &str = r#"
bot:\n  localpart: &x y              | 9: bot.localpart: a text that begins with & must be in quotes
bot: &x\n  localpart: y              | 8: bot: a text that begins with & must be in quotes
bot:\n  &x localpart: y              | 9: bot: a text that begins with & must be in quotes
authorization:\n  users: [&x "@a:b"]  | 9: authorization.users[0]: a text that begins with & must be in quotes
authorization:\n  users: &x []        | 9: authorization.users: a text that begins with & must be in quotes
authorization:\n  users:\n    &x "@a:b": nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk | 10: authorization.users: a text that begins with &
authorization: !x\n  power_level: 1   | 8: authorization: a text that begins with ! must be in quotes
authorization:\n  power_level: !!int 1 | 9: authorization.power_level: a text that begins with ! must
authorization:\n  !!str power_level: 1 | 9: authorization: a text that begins with ! must be in quotes
sessions:\n  <<: { restart: never }   | 9: sessions.<<: unknown key; the keys here are
sessions:\n  0: x                     | 9: sessions: a key must be a text; put it in quotes
sessions:\n  true: x                  | 9: sessions: a key must be a text; put it in quotes
sessions:\n  ~: x                     | 9: sessions: a key must be a text; put it in quotes
sessions:\n  : x                      | 9: sessions: a key must be a text; put it in quotes
sessions:\n  ? [x]\n  : y             | 9: sessions: a key must be a text; put it in quotes
sessions:\n  "": y                    | 9: sessions.: unknown key; the keys here are
sessions:\n  environment: { 5: x }    | 9: sessions.environment: a key must be a text; put it in quotes
bot:\n  localpart: "a"\n---\nx: y     | 11: there is more than one document
bot:\n  localpart: "a\u{1}"           | 9: holds a control character; remove it
bot:\n  localpart: a\u{0}\n  x: y     | 9: holds a control character; remove it
bot:\n\tlocalpart: a                  | 9: not YAML: 
"#;

#[test]
fn other_features_of_yaml_are_refused_with_their_line() {
    for (case, wanted) in table(BESIDE_VALUES) {
        let case = case.replace("\\n", "\n").replace("\\t", "\t");
        let case = case.replace("\\u{0}", "\0").replace("\\u{1}", "\u{1}");
        assert_one_problem(&format!("{BASE}{case}\n"), wanted);
    }
    let anchored = format!("{BASE}bot:\n  localpart: &x y\n  display_name: *x\n");
    let said = problems_of(&anchored);
    assert!(said.contains("has 2 problems") && said.contains("begins with * must be in quotes"));
    for (open, close) in [("[", "]"), ("{ a: ", "}")] {
        let deep = |times| format!("{BASE}x: {}{}\n", open.repeat(times), close.repeat(times));
        let said = problems_of(&deep(100));
        assert!(
            said.contains("8: values lie too deep in one another"),
            "{said}"
        );
        let said = problems_of(&deep(5_000));
        assert!(said.contains("\nconfig.yaml:8: "), "{said}");
    }
    let large = format!("{BASE}x: {}\n", "y".repeat(1024 * 1024));
    assert_one_problem(&large, " is larger than 1 MiB");
}

#[test]
fn a_file_as_other_systems_write_it_is_read() {
    parse(&format!("\u{feff}{BASE}")).unwrap();
    parse(&BASE.replace('\n', "\r\n")).unwrap();
    parse(&format!("---\n{BASE}...\n")).unwrap();
}

#[test]
fn problems_of_all_kinds_are_reported_at_once_in_the_order_of_the_file() {
    let text = "\
homeserver: 5
admin_room: !abc:example.org
admin_rom: x
bot: { localprt: x, display_name: '' }
authorization:
  users: [me, 5, \"@a:example.org\", you]
appservice: [x]
sessions:
  environment: { A: [x], B: [y] }
  stop_grace: 1
  directory: /srv
projects:
  web site: { directory: a }
  website: { directory: 5, deliver_to: [me], autostart: perhaps }
  other: x
";
    let said = problems_of(text);
    let places = said.lines().skip(1).map(|line| {
        let line = line.strip_prefix("config.yaml:").unwrap();
        let parts: Vec<_> = line.splitn(3, ": ").collect();
        format!("{} {}", parts[0], parts[1])
    });
    let wanted = [
        "1 homeserver",
        "2 admin_room",
        "3 admin_rom",
        "4 bot.localprt",
        "4 bot.display_name",
        "6 authorization.users[0]",
        "6 authorization.users[1]",
        "6 authorization.users[3]",
        "7 appservice",
        "9 sessions.environment.A",
        "9 sessions.environment.B",
        "10 sessions.stop_grace",
        "11 sessions.directory",
        "13 projects.web site",
        "14 projects.website.directory",
        "14 projects.website.autostart",
        "14 projects.website.deliver_to[0]",
        "15 projects.other",
    ];
    assert_eq!(places.collect::<Vec<_>>(), wanted, "{said}");
}

/// Each costs a reading of the file.
#[test]
fn a_file_with_thousands_of_problems_is_refused_too() {
    let keys: Vec<_> = (0..5_000)
        .map(|number| format!("key{number}: x\n"))
        .collect();
    let said = problems_of(&format!("{BASE}{}", keys.concat()));
    assert!(
        said.starts_with("config.yaml has 100 problems"),
        "{}",
        said.len()
    );
}

#[test]
fn a_secret_in_the_environment_is_in_no_message() {
    let said = problems_of(&format!(
        "{BASE}sessions:\n  environment:\n    RCBOT_SESSION_ID: hunter2\n    K: \"hun\\0ter2\"\n    KEY=hunter2: x\n"
    ));
    assert!(
        said.contains("has 3 problems") && !said.contains("hun"),
        "{said}"
    );
    for key in ["KEY=hunter2", "KEY:hunter2"] {
        let text = format!("{BASE}sessions:\n  environment: {{{key}}}\n");
        let wanted = "9: sessions.environment.KEY: wants a colon and a space right after its name";
        assert_one_problem(&text, wanted);
        assert!(!problems_of(&text).contains("hun"));
    }
}

#[test]
fn what_a_session_gets_is_in_no_debug_output() {
    let text = format!("{BASE}sessions:\n  stdin: hunter2\n  environment:\n    KEY: hunter3\n");
    let shown = format!("{:?}", parse(&text).unwrap());
    assert!(
        shown.contains("\"KEY\"") && !shown.contains("hunter"),
        "{shown}"
    );
}

#[test]
fn a_file_that_is_cut_off_is_taken_or_refused_with_reasons() {
    // A cut in a comment shows nothing.
    let is_comment = |line: &&str| line.trim_start().starts_with('#');
    let lines = EXAMPLE.lines().filter(|line| !is_comment(line));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    for length in (0..text.len()).step_by(3) {
        let cut = text.get(..length);
        if let Some(Err(problems)) = cut.map(parse) {
            assert!(problems.to_string().contains("\nconfig.yaml:"), "{length}");
        }
    }
}
