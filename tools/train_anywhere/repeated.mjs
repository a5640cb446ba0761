// Epochs after one another for a time, and how many steps a second that was; the first epoch is not counted.
export async function stepsASecond(epoch, steps, seconds) {
  await epoch();
  const begin = performance.now();
  let [done, passed] = [0, 0];
  do {
    await epoch();
    done += steps;
    passed = (performance.now() - begin) / 1000;
  } while (passed < seconds);
  return done / passed;
}
