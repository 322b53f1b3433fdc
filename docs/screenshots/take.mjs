// Takes the two pictures of README: the admin room and the direct message, in a real client at the width of a phone.
//
// It runs the playground (examples/playground) with the stand-in for `claude`, logs the client Hydrogen in as its
// administrator, has that device verified, and types the commands as a person would. It is no part of the tests.
// It needs what the playground needs, Node.js 20, and `apt install chromium fonts-noto-color-emoji`.
// Nothing of it belongs into this folder, so copy it to another one first:
//
//   cp -r docs/screenshots /tmp/screenshots && cd /tmp/screenshots && npm install
//   node take.mjs ~/rcbot /srv/website
//
// where ~/rcbot is this repository, and /srv/website a folder for the session, which the picture names. The pictures are
// written to docs/. They show the host's name: `unshare --uts sh -c 'hostname buildhost; node take.mjs ..'`, as root,
// gives it another one.
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { build, preview } from "vite";

const repository = resolve(process.argv[2] ?? ".");
const directory = resolve(process.argv[3] ?? "/srv/website");
const PHONE = { width: 390, height: 890 };
const PATIENCE = 120_000;

// The playground, which is spoken to by lines.
const playground = spawn("cargo", [..."run --locked --quiet --example playground -- --fresh --directory".split(" "), directory], {
  cwd: repository,
  stdio: ["pipe", "pipe", "pipe"],
});
const listeners = new Set();
for (const output of [playground.stdout, playground.stderr]) {
  createInterface({ input: output }).on("line", (line) => {
    console.log(line);
    listeners.forEach((listener) => listener(line));
  });
}
function line(pattern, text) {
  return new Promise((found) => {
    const listener = (line) => {
      const match = line.match(pattern);
      if (match) {
        listeners.delete(listener);
        found(match);
      }
    };
    listeners.add(listener);
    if (text) playground.stdin.write(`${text}\n`);
  });
}
const ended = new Promise((_, fail) => playground.on("exit", () => fail(new Error("the playground ended"))));
ended.catch(() => {});
const ready = line(/^Type a command/);

// The client, from its package, with the service worker that fetches pictures.
cpSync("node_modules/hydrogen-view-sdk/lib-build/sw.js", "public/sw.js");
await build({ logLevel: "warn" });
const server = await preview({ preview: { host: "127.0.0.1", port: 0 } });
const address = server.resolvedUrls.local[0];

const profile = mkdtempSync(join(tmpdir(), "screenshots-"));
const quiet = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", ...quiet.split(" ")],
  viewport: PHONE,
  deviceScaleFactor: 1,
  locale: "en-GB",
  timezoneId: "UTC",
});

try {
  await Promise.race([ended, ready]);
  const [, homeserver, user, password] = await line(/^.*Log in at (\S+?)\/? as (\S+) with the password (\S+),/, "/client");

  const page = browser.pages()[0] ?? (await browser.newPage());
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => console.log(`client: ${error}`));
  await page.goto(`${address}#/login`);
  await page.locator("#homeserver").fill(homeserver);
  await page.locator("#username").fill(user);
  await page.locator("#password").fill(password);
  await page.getByRole("button", { name: "Log In", exact: true }).click();
  const room = (name) => page.locator(".RoomList li", { hasText: name });
  await room("Admins").waitFor();
  await line(/verified the device/, "/verify");

  const say = async (text) => {
    await page.locator(".MessageComposer textarea").fill(text);
    await page.keyboard.press("Enter");
  };
  const shows = (text) => page.locator(".Timeline").getByText(text).last().waitFor();

  const picture = async (name) => {
    // What is under the pointer, or has the focus, looks different; and pictures are still being loaded.
    await page.mouse.move(0, 0);
    await page.evaluate(() => document.activeElement?.blur());
    await page.waitForTimeout(3000);
    await page.screenshot({ path: join(repository, `docs/${name}.png`) });
  };

  await room("Admins").click();
  await say("!rc start");
  await shows(/is running/);
  await say("!rc status");
  await shows(/ends in/i);

  const back = page.locator(".middle-header .close-middle");
  await back.click();
  await room("Remote Control").click();
  await shows(/claude\.ai\/code/);
  await picture("direct-message");

  // With the stop below it, what was sent before this client logged in, and cannot be read, is out of the picture.
  await back.click();
  await room("Admins").click();
  await say("!rc stop");
  await shows(/stopped/);
  await picture("admin-room");
} finally {
  await browser.close();
  await server.close();
  playground.stdin.end("/quit\n");
  rmSync(profile, { recursive: true, force: true });
}
