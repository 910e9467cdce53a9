"use strict";
// Everything that comes from a run becomes text nodes or attributes, never markup.
const D = JSON.parse(document.getElementById("data").textContent);
const PAGE = 200; // rows that are drawn at a time
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const $ = (id) => document.getElementById(id);

/** An element with attributes (functions become listeners) and children (text or elements). */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

const words = (name) => name.replaceAll("_", " ");
const several = D.folders.length > 1;
const prefix = (folder) => (several ? D.folders[folder] + " " : "");
