// Samples of the microphone as 16-bit integers, a tenth of a second at a time.
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
  }

  process([channels]) {
    for (const sample of channels[0] ?? []) {
      this.samples[this.count++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.count === this.samples.length) {
        this.port.postMessage(this.samples.slice().buffer);
        this.count = 0;
      }
    }
    return true;
  }
}
registerProcessor("recorder", Recorder);
