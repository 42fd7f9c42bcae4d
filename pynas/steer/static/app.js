// Puts the page together: every view listens to the model, which follows the search.

import "./controls.js";
import "./template.js";
import "./block_panel.js";
import "./map.js";
import "./selection.js";
import "./blocks.js";
import "./training.js";
import "./settings.js";
import "./trials.js";
import "./actions.js";
import "./runs.js";
import "./design.js";
import { load } from "./connection.js";

load();
