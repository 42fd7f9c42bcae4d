// Up to 20,000 points at once: WebGL where there is some, otherwise a plain canvas. Same input, same picture.

const VERTEX = `
attribute vec2 place; attribute vec4 fill; attribute vec4 rim; attribute float size;
uniform vec2 scale; uniform vec2 shift; uniform float ratio;
varying vec4 inner; varying vec4 outer; varying float diameter;
void main() {
  gl_Position = vec4(place * scale + shift, 0.0, 1.0);
  gl_PointSize = size * ratio;
  inner = fill; outer = rim; diameter = size * ratio;
}`;
const FRAGMENT = `
precision mediump float;
varying vec4 inner; varying vec4 outer; varying float diameter;
void main() {
  float r = length(gl_PointCoord - 0.5) * diameter;
  float edge = 0.5 * diameter;
  float disc = clamp(edge - r, 0.0, 1.0);
  float ring = clamp(r - (edge - 1.0 - 0.08 * diameter), 0.0, 1.0);
  vec4 colour = mix(inner, outer, ring);
  gl_FragColor = vec4(colour.rgb, 1.0) * colour.a * disc;
}`;

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  return gl.getProgramParameter(made, gl.LINK_STATUS) ? made : null;
}

function withWebGL(canvas) {
  const gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true, preserveDrawingBuffer: true });
  const made = gl && program(gl);
  if (!made) return null;
  gl.useProgram(made);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const parts = { place: [2, gl.FLOAT, false], fill: [4, gl.UNSIGNED_BYTE, true], rim: [4, gl.UNSIGNED_BYTE, true], size: [1, gl.FLOAT, false] };
  for (const name of Object.keys(parts)) gl.enableVertexAttribArray(gl.getAttribLocation(made, name));
  const held = []; // for each layer: its buffers, and the points that are in them
  const use = (dots, i) => {
    held[i] ??= { buffers: Object.fromEntries(Object.keys(parts).map((name) => [name, gl.createBuffer()])) };
    for (const [name, [width, type, scaled]] of Object.entries(parts)) {
      gl.bindBuffer(gl.ARRAY_BUFFER, held[i].buffers[name]);
      if (held[i].dots !== dots) gl.bufferData(gl.ARRAY_BUFFER, dots[name], gl.DYNAMIC_DRAW);
      gl.vertexAttribPointer(gl.getAttribLocation(made, name), width, type, scaled, 0, 0);
    }
    held[i].dots = dots;
  };
  const where = (name) => gl.getUniformLocation(made, name);
  return (layers, frame, ratio) => {
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const [sx, sy, tx, ty] = frame; // to pixels: x * sx + tx
    const width = canvas.width / ratio;
    const height = canvas.height / ratio;
    gl.uniform2f(where("scale"), (2 * sx) / width, (-2 * sy) / height);
    gl.uniform2f(where("shift"), (2 * tx) / width - 1, 1 - (2 * ty) / height);
    gl.uniform1f(where("ratio"), ratio);
    layers.forEach((dots, i) => {
      use(dots, i);
      gl.drawArrays(gl.POINTS, 0, dots.size.length);
    });
  };
}

function withCanvas(canvas) {
  const context = canvas.getContext("2d");
  const css = (colours, i) => `rgba(${colours[4 * i]},${colours[4 * i + 1]},${colours[4 * i + 2]},${colours[4 * i + 3] / 255})`;
  const put = (to, dots, [sx, sy, tx, ty], ratio) => {
    to.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (let i = 0; i < dots.size.length; i++) {
      to.beginPath();
      to.arc(dots.place[2 * i] * sx + tx, dots.place[2 * i + 1] * sy + ty, dots.size[i] / 2, 0, 7);
      to.fillStyle = css(dots.fill, i);
      to.fill();
      if (dots.size[i] > 5) {
        to.strokeStyle = css(dots.rim, i);
        to.stroke();
      }
    }
  };
  // Thousands of grey points lie below and seldom change: they are drawn once, and copied.
  let ground = { dots: null, key: "", picture: null };
  return ([under, ...above], frame, ratio) => {
    const key = [canvas.width, canvas.height, ratio, ...frame].join();
    if (ground.dots !== under || ground.key !== key) {
      const picture = document.createElement("canvas");
      [picture.width, picture.height] = [Math.max(1, canvas.width), Math.max(1, canvas.height)];
      put(picture.getContext("2d"), under, frame, ratio);
      ground = { dots: under, key, picture };
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(ground.picture, 0, 0);
    for (const dots of above) put(context, dots, frame, ratio);
  };
}

/** `draw([dots, ...], [scale x, scale y, shift x, shift y], ratio)` on a canvas that is put into `holder`. */
export function painter(holder) {
  const make = (with_) => {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    const draw = with_(canvas);
    return draw && { canvas, draw };
  };
  let made = make(withWebGL) ?? make(withCanvas);
  holder.prepend(made.canvas);
  const outer = { get canvas() { return made.canvas; }, draw: (...given) => made.draw(...given), restored: () => {} };
  const recover = () => {
    const next = make(withCanvas); // the graphics card was taken away: go on without it
    next.canvas.width = made.canvas.width;
    next.canvas.height = made.canvas.height;
    next.canvas.style.cssText = made.canvas.style.cssText;
    made.canvas.replaceWith(next.canvas);
    made = next;
    outer.restored();
  };
  made.canvas.addEventListener("webglcontextlost", recover);
  return outer;
}
