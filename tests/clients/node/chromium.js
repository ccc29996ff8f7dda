// A headless Chromium that sends nothing by itself and keeps nothing.
const { chromium } = require("playwright-core");

module.exports = (...more) => chromium.launch({
  executablePath: process.env.CHROMIUM, headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", ...more],
});
