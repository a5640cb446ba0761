// Every memory that WebAssembly gets on this page, to be asked for its size; it never shrinks.
globalThis.memories = new Set();
WebAssembly.Memory = new Proxy(WebAssembly.Memory, {
  construct(kind, given) {
    const memory = new kind(...given);
    memories.add(memory);
    return memory;
  },
});
for (const name of ['instantiate', 'instantiateStreaming']) {
  const original = WebAssembly[name];
  WebAssembly[name] = async (...given) => {
    const found = await original.apply(WebAssembly, given);
    for (const each of Object.values((found.instance ?? found).exports)) {
      if (Object.prototype.toString.call(each) === '[object WebAssembly.Memory]') memories.add(each);
    }
    return found;
  };
}
globalThis.heap = () => [...memories].reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
