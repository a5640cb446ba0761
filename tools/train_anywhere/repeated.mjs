// Epochs after one another for a time, and how many steps a second that was. So much time is trained before it counts:
// browsers compile WebAssembly twice, and until the better code is there a step takes more than twice as long.
export async function stepsASecond(epoch, steps, seconds) {
  await timed(epoch, steps, seconds);
  return timed(epoch, steps, seconds);
}

async function timed(epoch, steps, seconds) {
  const begin = performance.now();
  let [done, passed] = [0, 0];
  do {
    await epoch();
    done += steps;
    passed = (performance.now() - begin) / 1000;
  } while (passed < seconds);
  return done / passed;
}
