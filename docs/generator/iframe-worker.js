// A page that is opened from a disk may start no Worker: there the search's script runs in a hidden frame.
// The theme's plugin `offline` wants a script of this name, and would load one from elsewhere.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.body.appendChild(document.createElement("iframe"));
      frame.hidden = true;
      this.space = frame.contentWindow;
      this.space.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
      const script = this.space.document.createElement("script");
      this.loaded = new Promise(done => (script.onload = done));
      script.src = new URL(url, location.href);
      this.space.document.body.append(script);
    }

    postMessage(data) {
      this.loaded.then(() => this.space.dispatchEvent(new this.space.MessageEvent("message", {data})));
    }
  };
}
