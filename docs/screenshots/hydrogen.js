// The Matrix client Hydrogen, put together from its own package as its README says.
import { FeatureFlag, FeatureSet, Platform, RootView, RootViewModel, createNavigation, createRouter } from "hydrogen-view-sdk";
import downloadSandbox from "hydrogen-view-sdk/download-sandbox.html?url";
import worker from "hydrogen-view-sdk/main.js?url";
import wasm from "@matrix-org/olm/olm.wasm?url";
import wasmBundle from "@matrix-org/olm/olm.js?url";
import legacyBundle from "@matrix-org/olm/olm_legacy.js?url";
import "hydrogen-view-sdk/assets/theme-element-light.css";

const container = document.body;
const assetPaths = { downloadSandbox, worker, olm: { wasm, wasmBundle, legacyBundle }, serviceWorker: "/sw.js" };
const platform = new Platform({ container, assetPaths, config: {}, options: { development: true } });
await platform.init();
const navigation = createNavigation();
platform.setNavigation(navigation);
const urlRouter = createRouter({ navigation, history: platform.history });
urlRouter.attach();
const features = new FeatureSet(FeatureFlag.CrossSigning);
const model = new RootViewModel({ platform, navigation, urlRouter, features });
await model.load();
container.appendChild(new RootView(model).mount());
