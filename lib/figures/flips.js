const form = document.querySelector("form"), tasks = document.querySelectorAll("section");
const value = name => form.elements[name].value;
function update() {
  const count = { gained: 0, lost: 0, same: 0 };
  tasks.forEach(task => {
    const [left, right] = ["left", "right"].map(name => task.querySelector(`[data-side="${value(name)}"]`));
    task.querySelectorAll("[data-side]").forEach(one => {
      one.hidden = one !== left && one !== right;
      one.style.order = one === right ? 1 : 0;
    });
    const kind = ["lost", "same", "gained"][1 + (right.dataset.right - left.dataset.right)];
    const fits = ["tier", "language"].every(name => !value(name) || task.dataset[name] === value(name))
      && ["troopers_type", "polycode_type"].every(name => !value(name)
        || [left, right].some(one => one.getAttribute("data-" + name.replace("_", "-")) === value(name)));
    count[kind] += fits;
    task.hidden = !fits || !(["all", kind].includes(value("show")) || value("show") === "flips" && kind !== "same");
  });
  form.querySelector("output").textContent = `${count.gained} gained, ${count.lost} lost, ${count.same} the same`;
}
form.addEventListener("input", update);
form.addEventListener("submit", event => event.preventDefault());
update();
