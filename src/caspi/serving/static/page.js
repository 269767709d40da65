// The page of `caspi serve`: records or takes a file, shows its text while it is recognised, plays words, saves.
import { TEXTS } from "/static/texts.js";

const byId = (id) => document.getElementById(id);
const [transcript, player, record, statusLine] = ["transcript", "player", "record", "status"].map(byId);
const LOW = 0.5, MIDDLE = 0.8; // probabilities below which a word is coloured
const MOST_RETRIES = 3;
const LONG = 25; // seconds: a longer recording is saved in its parts

// What was recognised: its audio, and what the server found in it.
let current = null; // {blob, name, text, segments, duration, language}
let recording = null; // {context, stream, socket, pieces}
let interfaceLanguage = "he";
const say = (name, ...values) => TEXTS[interfaceLanguage][name].replace(/\{(\d)\}/g, (_, n) => values[n]);

function translate() {
  document.documentElement.lang = interfaceLanguage;
  document.documentElement.dir = interfaceLanguage === "he" ? "rtl" : "ltr";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  byId("interface").textContent = interfaceLanguage === "he" ? "English" : "עברית";
  byId("interface").lang = interfaceLanguage === "he" ? "en" : "he";
  record.textContent = say(recording ? "stop" : "record");
  transcript.setAttribute("aria-label", say("text"));
  transcript.setAttribute("data-empty", say("empty"));
  for (const kind of ["txt", "srt", "vtt", "json"]) byId(kind).setAttribute("aria-label", say("download", kind));
  player.setAttribute("aria-label", say("player"));
}

function tell(text, problem = false) {
  statusLine.textContent = text;
  statusLine.classList.toggle("problem", problem);
}

// --- asking the server

const key = () => byId("key").value.trim();
const headers = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

async function problemOf(answer) {
  if (answer.status === 401) byId("key-field").hidden = false;
  try {
    return (await answer.json()).error.message;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

function form(blob, name, fields) {
  const made = new FormData();
  made.append("file", blob, name);
  made.append("model", byId("model").textContent);
  for (const [field, value] of Object.entries(fields)) made.append(field, value);
  return made;
}

async function post(path, body, retries = MOST_RETRIES) {
  const answer = await fetch(path, { method: "POST", body, headers: headers() });
  if (answer.status === 429 && retries > 0) {
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    tell(say("busy", seconds));
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    return post(path, body, retries - 1);
  }
  if (!answer.ok) throw new Error(await problemOf(answer));
  return answer;
}

const asked = () => ({ language: byId("language").value, prompt: byId("hotwords").value.trim() });

// The words with their times where the server can find them, otherwise without.
async function details(blob, name) {
  const verbose = { ...asked(), response_format: "verbose_json" };
  try {
    return await (await post("/v1/audio/transcriptions", form(blob, name, { ...verbose, "timestamp_granularities[]": "word" }))).json();
  } catch (error) {
    if (!String(error.message).startsWith("timestamp_granularities")) throw error;
    return (await post("/v1/audio/transcriptions", form(blob, name, verbose))).json();
  }
}

// The text as it grows (server-sent events), then its words, which come with the last event.
async function transcribe(blob, name) {
  if (recording) stopRecording(true);
  const mine = begin();
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
  tell(say("working"));
  try {
    const answer = await post("/v1/audio/transcriptions", form(blob, name, { ...asked(), stream: "true", details: "true" }));
    for await (const event of events(answer.body)) {
      if (mine !== work) return;
      if (event.type === "transcript.text.delta") grow(event.delta);
      if (event.type === "error") throw new Error(event.error.message);
      if (event.type === "transcript.text.done") show(blob, name, event.details);
    }
  } catch (error) {
    if (mine === work) tell(error.message, true);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (buffered + value).split("\n\n");
    buffered = parts.pop();
    for (const part of parts) yield JSON.parse(part.replace(/^data: /, ""));
  }
}

// --- showing

// What is shown belongs to the last recording or file that was begun; the number is its own.
let work = 0;

function begin() {
  current = null;
  transcript.contentEditable = "false";
  transcript.replaceChildren();
  for (const button of document.querySelectorAll(".save, #correct")) button.disabled = true;
  work += 1;
  return work;
}

function grow(delta) {
  let growing = transcript.querySelector(".growing");
  if (!growing) {
    growing = document.createElement("span");
    growing.className = "growing";
    transcript.append(growing);
  }
  growing.textContent += delta;
}

function show(blob, name, found) {
  transcript.contentEditable = "true";
  found.segments.forEach((segment, n) => { segment.place = n; });
  current = { blob, name, text: found.text, segments: found.segments, duration: found.duration, language: found.language };
  transcript.replaceChildren(...found.segments.flatMap((segment) => segment.words.flatMap((word) => [wordElement(word, segment), " "])));
  for (const button of document.querySelectorAll(".save, #correct")) button.disabled = !found.text;
  tell(found.text ? (found.warnings || []).join(" ") || say("done", found.duration.toFixed(1)) : say("nothing"));
}

function wordElement(word, segment) {
  const element = document.createElement("span");
  element.className = "word";
  element.textContent = word.word;
  if (word.probability !== null && word.probability < LOW) element.classList.add("low");
  else if (word.probability !== null && word.probability < MIDDLE) element.classList.add("middle");
  if (word.probability !== null) element.title = say("sure", Math.round(100 * word.probability));
  element.dataset.start = word.start ?? segment.start;
  element.dataset.end = word.end ?? segment.end;
  element.dataset.segment = segment.place;
  return element;
}

let playUntil = null;
transcript.addEventListener("click", (event) => play(event.target.closest(".word")));
transcript.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.ctrlKey) return;
  event.preventDefault();
  play(getSelection().anchorNode?.parentElement?.closest(".word"));
});

function play(word) {
  if (!word || player.hidden) return;
  player.currentTime = Math.max(0, Number(word.dataset.start) - 0.05);
  playUntil = Number(word.dataset.end) + 0.05;
  player.play();
}

player.addEventListener("timeupdate", () => {
  if (playUntil !== null && player.currentTime >= playUntil) {
    player.pause();
    playUntil = null;
  }
  for (const word of transcript.querySelectorAll(".word")) {
    word.classList.toggle("now", !player.paused && player.currentTime >= word.dataset.start && player.currentTime < word.dataset.end);
  }
});

// --- recording

async function startRecording() {
  const mine = begin();
  player.hidden = true;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    const context = new AudioContext();
    await context.audioWorklet.addModule("/static/recorder.js");
    const query = key() ? `?key=${encodeURIComponent(key())}` : "";
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/live${query}`);
    recording = { stream, context, socket, pieces: [], finals: [], finished: false, mine };
    const made = recording;
    socket.onopen = () => {
      const { language, prompt } = asked();
      socket.send(JSON.stringify({ type: "start", language, context: prompt, sample_rate: context.sampleRate }));
      for (const piece of made.pieces) socket.send(piece);
      const node = new AudioWorkletNode(context, "recorder");
      node.port.onmessage = ({ data }) => {
        made.pieces.push(data);
        if (socket.readyState === WebSocket.OPEN && !made.finished) socket.send(data);
      };
      context.createMediaStreamSource(stream).connect(node);
    };
    socket.onmessage = ({ data }) => heard(made, JSON.parse(data));
    socket.onclose = ({ code }) => {
      if (code === 1006 && made.finals.length === 0 && !made.finished) tell(say("lost"), true);
      if (recording === made) stopRecording();
    };
    tell(say("listening"));
  } catch (error) {
    recording = null;
    tell(say("microphone", error.message), true);
  }
  record.setAttribute("aria-pressed", String(recording !== null));
  translate();
}

function heard(made, message) {
  if (made.mine !== work) return made.socket.close();
  if (message.type === "error") tell(message.message, true);
  if (message.type === "final") made.finals.push(message);
  if (message.type === "partial" || message.type === "final") {
    const growing = document.createElement("span");
    growing.className = "growing";
    growing.textContent = message.type === "partial" ? message.text : "";
    const words = made.finals.flatMap((final) => final.words.flatMap((word) => [wordElement(word, final), " "]));
    transcript.replaceChildren(...words, growing);
  }
  if (message.type === "done") {
    made.socket.close();
    if (made.pieces.length === 0) return tell(say("nothing"));
    const blob = wav(made.pieces, made.context.sampleRate);
    player.src = URL.createObjectURL(blob);
    player.hidden = false;
    tell(say("timing"));
    details(blob, "recording.wav").then(
      (found) => made.mine === work && show(blob, "recording.wav", found),
      (error) => made.mine === work && tell(error.message, true),
    );
  }
  return undefined;
}

function stopRecording(dropped = false) {
  const made = recording;
  recording = null;
  made.finished = true;
  for (const track of made.stream.getTracks()) track.stop();
  made.context.close();
  if (dropped) made.socket.close();
  else if (made.socket.readyState === WebSocket.OPEN) made.socket.send(JSON.stringify({ type: "stop" }));
  record.setAttribute("aria-pressed", "false");
  translate();
}

// 16-bit samples as a WAV file.
function wav(pieces, rate) {
  const size = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  const header = new DataView(new ArrayBuffer(44));
  const ascii = (at, text) => [...text].forEach((letter, n) => header.setUint8(at + n, letter.charCodeAt(0)));
  ascii(0, "RIFF");
  header.setUint32(4, 36 + size, true);
  ascii(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  ascii(36, "data");
  header.setUint32(40, size, true);
  return new Blob([header.buffer, ...pieces], { type: "audio/wav" });
}

// --- saving

const written = () => transcript.innerText.replace(/\s+/g, " ").trim();

async function download(kind) {
  const edited = written() !== current.text;
  const segments = edited ? editedSegments() : current.segments;
  const found = { text: written(), edited, language: current.language, duration: current.duration, segments };
  let content = kind === "json" ? `${JSON.stringify(found, null, 1)}\n` : `${written()}\n`;
  if (kind === "srt" || kind === "vtt") {
    const body = JSON.stringify({ format: kind, language: current.language || null, duration: current.duration, segments });
    const answer = await fetch("/v1/subtitles", { method: "POST", body, headers: { ...headers(), "Content-Type": "application/json" } });
    if (!answer.ok) return tell(await problemOf(answer), true);
    content = await answer.text();
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/plain;charset=utf-8" }));
  link.download = `${current.name.replace(/\.[^.]*$/, "")}.${kind}`;
  link.click();
  return URL.revokeObjectURL(link.href);
}

// What was edited, in the segments that were recognised. Words that are still there keep their times; a word that was
// typed begins where the one before it ends, and belongs to its segment.
function editedSegments() {
  const made = current.segments.map((segment) => ({ start: segment.start, end: segment.end, words: [] }));
  let [place, before] = [0, current.segments[0]?.start ?? 0];
  for (const node of transcript.childNodes) {
    const times = node.dataset?.start !== undefined ? node.dataset : null;
    if (times) place = Number(times.segment);
    for (const word of node.textContent.split(/\s+/).filter(Boolean)) {
      const [start, end] = times ? [Number(times.start), Number(times.end)] : [before, before];
      made[place]?.words.push({ word, start, end });
      before = end;
    }
  }
  for (const segment of made) segment.text = segment.words.map((word) => word.word).join(" ");
  return made.filter((segment) => segment.text);
}

async function correct() {
  byId("correct").disabled = true;
  try {
    const language = current.language || byId("language").value;
    const fields = { text: written(), recognised: current.text, language };
    if (current.duration > LONG) fields.segments = JSON.stringify(editedSegments());
    const saved = await (await post("/v1/corrections", form(current.blob, current.name, fields))).json();
    tell(say("saved", saved.saved));
  } catch (error) {
    tell(error.message, true);
    byId("correct").disabled = false;
  }
}

// --- beginning

byId("interface").addEventListener("click", () => {
  interfaceLanguage = interfaceLanguage === "he" ? "en" : "he";
  translate();
});
record.addEventListener("click", () => (recording ? stopRecording() : startRecording()));
byId("file").addEventListener("change", ({ target }) => {
  const [chosen] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (chosen) transcribe(chosen, chosen.name);
});
for (const kind of ["txt", "srt", "vtt", "json"]) byId(kind).addEventListener("click", () => download(kind));
byId("correct").addEventListener("click", correct);
transcript.addEventListener("input", () => { if (current) byId("correct").disabled = !written(); });
transcript.addEventListener("paste", (event) => {
  event.preventDefault();
  document.execCommand("insertText", false, event.clipboardData.getData("text/plain"));
});
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files[0]) transcribe(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
});
byId("key").addEventListener("change", greet);

async function greet() {
  const answer = await fetch("/v1/models", { headers: headers() });
  if (!answer.ok) return tell(await problemOf(answer), true);
  byId("model").textContent = (await answer.json()).data[0].id;
  const corrections = await (await fetch("/v1/corrections", { headers: headers() })).json();
  byId("correct").hidden = !corrections.enabled;
  return tell("");
}

if (!navigator.language.startsWith("he")) interfaceLanguage = "en";
translate();
greet();
